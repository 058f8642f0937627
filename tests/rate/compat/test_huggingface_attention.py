"""Our attention inside transformers' own Decision Transformer: the same numbers, or an error that says why not."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

from rate.compat.huggingface import attention as ours  # noqa: E402 - after the check that transformers is there
from rate.compat.huggingface import disable, enable  # noqa: E402
from tests.rate.compat.helpers import PADDINGS, randomise, real_steps  # noqa: E402
from tests.rate.helpers import error  # noqa: E402

DS, DA = 3, 2
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def build(**settings) -> transformers.DecisionTransformerModel:
    small = {"state_dim": DS, "act_dim": DA, "hidden_size": 16, "n_layer": 2, "n_head": 2, "max_ep_len": 120}
    small |= {"vocab_size": 1, "bos_token_id": None, "eos_token_id": None} | NO_DROPOUT
    config = transformers.DecisionTransformerConfig(**(small | settings), attn_implementation="eager")
    model = transformers.DecisionTransformerModel(config)
    randomise(model)
    return model


def window(batch: int, steps: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = {"states": DS, "actions": DA, "rewards": 1, "returns_to_go": 1}
    given = {name: torch.randn(batch, steps, size, generator=g).to(dtype) for name, size in shapes.items()}
    return given | {"timesteps": torch.arange(steps).expand(batch, -1)}


def predicted(model: nn.Module, given: dict[str, Tensor], mask: Tensor | None, real: Tensor) -> Tensor:
    """All predictions of real steps, one row each."""
    out = model(**given, attention_mask=mask)
    return torch.cat([out.state_preds, out.action_preds, out.return_preds], -1)[real]


def scattered(batch: int, steps: int) -> Tensor:
    """Padding between real steps too."""
    real = torch.rand(batch, steps, generator=torch.Generator().manual_seed(1)) < 0.6
    real[:, steps // 2] = True
    return real


@pytest.mark.parametrize("steps", [1, 2, 20, 100])
@pytest.mark.parametrize("padding", [*PADDINGS, "scattered"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64], ids=str)
def test_outputs_and_gradients_are_those_of_transformers(
    steps: int, padding: str, dtype: torch.dtype
) -> None:
    batch = 3 if steps < 50 else 2
    real = scattered(batch, steps) if padding == "scattered" else real_steps(batch, steps, padding)
    mask = None if padding == "none" else real.to(dtype)
    theirs, model = build().double(), enable(build())
    wanted = predicted(theirs, window(batch, steps, torch.float64), mask, real)
    found = predicted(model, window(batch, steps), mask, real)
    assert error(found, wanted) < 1e-5
    wanted.square().mean().backward()
    found.square().mean().backward()
    for (name, there), here in zip(theirs.named_parameters(), model.parameters(), strict=True):
        assert (there.grad is None) == (here.grad is None), name
        if there.grad is not None:
            difference = (here.grad.double() - there.grad).norm()
            # The key's bias has no gradient but rounding: it moves all scores of a row alike.
            assert difference < 1e-5 * there.grad.norm().clamp_min(1e-1), name


@pytest.mark.parametrize(
    "settings",
    [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_of_the_scores_are_kept(settings: dict[str, bool]) -> None:
    real = real_steps(3, 6, "left")
    # Where the scores are computed changes nothing in float64, in which transformers' own function refuses to run.
    exact = {name: value for name, value in settings.items() if name != "reorder_and_upcast_attn"}
    wanted = predicted(build(**exact).double(), window(3, 6, torch.float64), real.long(), real)
    assert error(predicted(enable(build(**settings)), window(3, 6), real.long(), real), wanted) < 1e-5
    if "reorder_and_upcast_attn" in settings:  # scores in float32 where the model is in bfloat16
        lowered = enable(build(**settings).bfloat16())
        found = predicted(lowered, window(3, 6, torch.bfloat16), real.long(), real)
        original = predicted(build(**settings).bfloat16(), window(3, 6, torch.bfloat16), real.long(), real)
        assert error(found, wanted) < 2 * error(original, wanted)


def test_our_attention_is_what_runs_and_disabling_restores_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = ours.memory_attention
    monkeypatch.setattr(ours, "memory_attention", lambda *a, **k: calls.append(k) or run(*a, **k))
    model, real = build(), real_steps(2, 5, "both")
    before = predicted(model, window(2, 5), real, real)
    assert enable(model) is model and model.config._attn_implementation == "rate"
    enable(model)  # once more changes nothing
    predicted(model, window(2, 5), real, real)
    assert len(calls) == 2
    disable(model)
    assert model.config._attn_implementation == "eager"
    assert torch.equal(predicted(model, window(2, 5), real, real), before) and len(calls) == 2
    assert not any(layer.attn._forward_pre_hooks for layer in model.encoder.h)
    disable(model)
    model.set_attn_implementation("rate")  # by its name, as any other
    predicted(model, window(2, 5), real, real)
    assert len(calls) == 4
    disable(model)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("padding", ["none", "left", "scattered"])
def test_attention_weights_come_when_asked_for(padding: str) -> None:
    real = scattered(2, 5) if padding == "scattered" else real_steps(2, 5, padding)
    asked = window(2, 5) | {"attention_mask": real.float(), "output_attentions": True}
    theirs, model = build(), enable(build())
    wanted, found = theirs(**asked), model(**asked)
    tokens = real.repeat_interleave(3, 1)
    assert len(found.attentions) == 2
    for there, here in zip(wanted.attentions, found.attentions, strict=True):
        assert here.shape == (2, 2, 15, 15)
        assert error(here.transpose(1, 2)[tokens], there.transpose(1, 2)[tokens]) < 1e-5
    assert error(found.action_preds[real], wanted.action_preds[real]) < 1e-5
    assert model(**(asked | {"output_attentions": False})).attentions is None


def test_dropout_falls_on_attention_in_training_only() -> None:
    torch.manual_seed(0)
    model = enable(build(attn_pdrop=0.5)).train()
    real = torch.ones(2, 6).bool()
    first, second = (predicted(model, window(2, 6), None, real) for _ in range(2))
    assert error(first, second) > 1e-2
    model.eval()
    without = predicted(model, window(2, 6), None, real)
    assert torch.equal(without, predicted(model, window(2, 6), None, real))
    # Output of a single layer of attention is linear in its weights, so its mean over masks is what it is without.
    layer = model.encoder.h[0].attn
    x, mask = torch.randn(1, 9, 16), torch.zeros(4000, dtype=torch.int64)
    wanted = layer(x, attention_mask=mask[:1])[0]
    layer.train()
    mean = layer(x.repeat(4000, 1, 1), attention_mask=mask)[0].mean(0, keepdim=True)
    assert error(mean, wanted) < 0.05


def test_two_hundred_updates() -> None:
    torch.manual_seed(0)
    model = enable(build(n_layer=1, attn_pdrop=0.1, resid_pdrop=0.1, embd_pdrop=0.1)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    target = nn.Linear(DS, DA)
    losses = []
    for _ in range(200):
        states = torch.randn(16, 4, DS)
        actions = target(states).tanh().detach()
        real = real_steps(16, 4, "left", seed=len(losses))
        out = model(
            states=states,
            actions=actions,
            rewards=torch.zeros(16, 4, 1),
            returns_to_go=torch.ones(16, 4, 1),
            timesteps=torch.arange(4).expand(16, -1),
            attention_mask=real.float(),
        )
        loss = (out.action_preds - actions)[real].square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.4 * sum(losses[:10]), (losses[:10], losses[-10:])


def test_what_it_cannot_express_is_refused() -> None:
    model, x = enable(build()), torch.randn(2, 6, 16)
    with pytest.raises(ValueError, match=r"attention_mask must be \[B, L\].*got \[2, 1, 6, 6\]"):
        model.encoder(inputs_embeds=x, attention_mask=torch.zeros(2, 1, 6, 6))
    first = model.encoder(inputs_embeds=x)
    with pytest.raises(ValueError, match="past_key_values must be empty"):
        model.encoder(inputs_embeds=x, past_key_values=first.past_key_values)
    packed = torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)
    with pytest.raises(ValueError, match="causal mask alone"):
        model.encoder(inputs_embeds=x, position_ids=packed, use_cache=False)
    layer = model.encoder.h[0].attn
    with pytest.raises(ValueError, match="attention_mask must come from the mask function"):
        layer(x)
    q = torch.randn(2, 2, 6, 8)
    start = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="sliding_window must be None"):
        ours.attention(layer, q, q, q, start, sliding_window=3)
    with pytest.raises(ValueError, match="key must be"):
        ours.attention(layer, q, q[:, :1], q[:, :1], start)
    layer.is_causal = False
    with pytest.raises(ValueError, match="is causal"):
        ours.attention(layer, q, q, q, start)
    bidirectional = enable(build())
    bidirectional.config.is_causal = False
    with pytest.raises(ValueError, match="causal mask alone"):
        bidirectional(**window(2, 3))
    for other in (nn.Linear(2, 2), "model"):
        with pytest.raises(TypeError, match="DecisionTransformerModel"):
            enable(other)


def test_it_is_a_module_like_any_other(tmp_path: Path) -> None:
    real = real_steps(2, 5, "left")
    model = enable(build()).eval()
    expected = predicted(model, window(2, 5), real, real)
    assert torch.equal(predicted(copy.deepcopy(model), window(2, 5), real, real), expected)
    assert torch.equal(predicted(nn.DataParallel(model), window(2, 5), real, real), expected)
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 2e-1)):
        found = predicted(copy.deepcopy(model).to(dtype), window(2, 5, dtype), real, real)
        assert found.dtype == dtype and error(found, expected) < tolerance
    with torch.autocast("cpu", torch.bfloat16):
        assert error(predicted(model, window(2, 5), real, real), expected) < 2e-1
    given = window(2, 5) | {"attention_mask": real.long()}
    exported = torch.export.export(model, (), given, strict=False).module()
    assert error(exported(**given).action_preds[real], model(**given).action_preds[real]) < 1e-5
    model.save_pretrained(tmp_path)  # what it computes attention with is no part of a model's file
    loaded = transformers.DecisionTransformerModel.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation != "rate"
    assert error(predicted(loaded, window(2, 5), real, real), expected) < 1e-5
