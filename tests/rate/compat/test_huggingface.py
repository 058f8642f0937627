"""RateModel: transformers' Decision Transformer without memory, in its conventions with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

from huggingface_hub.errors import StrictDataclassError  # noqa: E402 - after the check above

from rate.compat.huggingface import RateConfig, RateModel, RateOutput  # noqa: E402
from tests.rate.compat import originals  # noqa: E402
from tests.rate.compat.helpers import (  # noqa: E402
    PADDINGS,
    check_module,
    gradients,
    randomise,
    real_steps,
    successive,
)
from tests.rate.helpers import error  # noqa: E402

DS, DA, HEADS = 3, 2, 2
SMALL = {"state_dim": DS, "act_dim": DA, "hidden_size": 16, "n_layer": 2, "n_head": HEADS, "max_ep_len": 130}
SMALL |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "n_positions": 8}


def build(seed: int = 0, **settings) -> RateModel:
    model = RateModel(RateConfig(**(SMALL | {"max_length": 6} | settings)))
    randomise(model, seed)
    return model


def original(seed: int = 0, **settings) -> transformers.DecisionTransformerModel:
    none = {"bos_token_id": None, "eos_token_id": None}
    model = transformers.DecisionTransformerModel(
        transformers.DecisionTransformerConfig(**(SMALL | none | settings), attn_implementation="eager")
    )
    randomise(model, seed)
    return model


def window(
    batch: int, steps: int, padding: str = "none", first: int = 0, seed: int = 0
) -> tuple[dict[str, Tensor], Tensor]:
    """Arguments, and which steps are real."""
    g = torch.Generator().manual_seed(seed)
    real = real_steps(batch, steps, padding)
    shapes = {"states": DS, "actions": DA, "rewards": 1, "returns_to_go": 1}
    given = {name: torch.randn(batch, steps, size, generator=g) for name, size in shapes.items()}
    given["timesteps"] = successive(real, torch.full((batch,), first))
    return given, real


def double(given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.double() if x.is_floating_point() else x for name, x in given.items()}


# --- Without memory: the original ---------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 20, 100])
@pytest.mark.parametrize("padding", PADDINGS)
def test_outputs_and_gradients_are_the_originals(steps: int, padding: str) -> None:
    theirs = original().double()
    model = RateModel.from_decision_transformer(original())
    given, real = window(2, steps, padding, first=4)
    mask = None if padding == "none" else real.to(torch.float64)
    wanted = theirs(**double(given), attention_mask=mask)
    found = model(**given, attention_mask=mask)
    p = {name: value.double().requires_grad_() for name, value in model.original_state_dict().items()}
    unused = given.pop("rewards")
    stated = originals.huggingface(p, HEADS, **double(given), mask=mask)
    assert unused.shape == (2, steps, 1) and isinstance(found, transformers.utils.ModelOutput)
    losses = []
    for out in ((wanted.state_preds, wanted.action_preds, wanted.return_preds), stated, found[:3]):
        losses.append(sum(part[real].square().mean() for part in out))
    for name, of_theirs, of_statement in zip(("state", "action", "return"), wanted[:3], stated, strict=True):
        ours = found[f"{name}_preds"][real]
        assert error(ours, of_theirs[real]) < 1e-5 and error(ours, of_statement[real]) < 1e-5
    tokens = real.repeat_interleave(3, 1)
    assert error(found.last_hidden_state[tokens], wanted.last_hidden_state[tokens]) < 1e-5
    for loss in losses:
        loss.backward()
    grads = gradients(model, lambda holder: holder.original_state_dict())
    for name, parameter in theirs.named_parameters():
        if parameter.grad is None:
            assert name == "encoder.wte.weight"  # which nothing reads
            continue
        # The key's bias has no gradient but rounding: it moves all scores of a row alike.
        scale = 1e-5 * parameter.grad.norm().clamp_min(1e-1)
        assert (grads[name] - parameter.grad).norm() < scale, name
        assert (grads[name] - p[name].grad).norm() < scale, name


@pytest.mark.parametrize(
    "settings",
    [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"n_inner": 24, "activation_function": "gelu_new", "action_tanh": False, "layer_norm_epsilon": 1e-2},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_mean_what_they_mean_there(settings: dict) -> None:
    theirs = original(**settings)
    model = RateModel.from_decision_transformer(theirs)
    given, _ = window(2, 5)
    assert error(model(**given).action_preds, theirs(**given).action_preds) < 1e-5
    back = model.to_decision_transformer()
    assert error(back(**given).action_preds, theirs(**given).action_preds) < 1e-5


@pytest.mark.parametrize("padding", PADDINGS)
def test_hidden_states_and_attentions_are_the_originals(padding: str) -> None:
    theirs, model = original(), RateModel.from_decision_transformer(original())
    given, real = window(2, 5, padding)
    asked = {"output_hidden_states": True, "output_attentions": True, "attention_mask": real.long()}
    wanted, found = theirs(**given, **asked), model(**given, **asked)
    tokens = real.repeat_interleave(3, 1)
    assert len(found.hidden_states) == 3 and len(found.attentions) == 2
    for there, here in zip(wanted.hidden_states, found.hidden_states, strict=True):
        assert error(here[tokens], there[tokens]) < 1e-5
    for there, here in zip(wanted.attentions, found.attentions, strict=True):
        assert here.shape == (2, HEADS, 15, 15)
        assert error(here.transpose(1, 2)[tokens], there.transpose(1, 2)[tokens]) < 1e-5
    plain = model(**given, attention_mask=real.long())
    assert plain.hidden_states is None and plain.attentions is None and plain.memory is None
    assert error(plain.action_preds[real], found.action_preds[real]) < 1e-6
    preds = model(**given, attention_mask=real.long(), return_dict=False)
    assert isinstance(preds, tuple) and len(preds) == 3
    assert all(torch.equal(a, b) for a, b in zip(preds, plain.to_tuple()[:3], strict=True))


def test_state_dicts_of_the_original_load_and_are_given_back() -> None:
    theirs, model = original().state_dict(), build(seed=3)
    older = theirs | {"encoder.h.0.attn.bias": torch.ones(1, 1, 8, 8), "encoder.h.0.attn.masked_bias": -1e4}
    model.load_state_dict(older)  # files of older versions hold masks
    given, _ = window(2, 5)
    assert error(model(**given).action_preds, original()(**given).action_preds) < 1e-5
    for name, value in model.original_state_dict().items():
        assert name == "encoder.wte.weight" or torch.equal(value, theirs[name]), name
    for change, message in (
        (lambda p: p.pop("encoder.h.1.attn.c_proj.bias"), "encoder.h.1.attn.c_proj.bias"),
        (lambda p: p.update({"encoder.h.2.ln_1.bias": torch.ones(16)}), "encoder.h.2.ln_1.bias"),
        (lambda p: p.update({"embed_state.weight": torch.ones(16, 4)}), "embed_state.weight"),
    ):
        broken = dict(theirs)
        change(broken)
        with pytest.raises(RuntimeError, match=message):
            model.load_state_dict(broken)


def test_acting_without_memory_reads_the_last_steps() -> None:
    model = build()
    given, _ = window(1, 9)
    last = {name: x[:, -6:] for name, x in given.items()}
    wanted = model(**last).action_preds[0, -1]
    action = model.get_action(*(given[name][0] for name in given))
    assert action.shape == (DA,) and error(action, wanted) < 1e-5


# --- With memory --------------------------------------------------------------------------------------


def act(model: RateModel, given: dict[str, Tensor], steps: range) -> Tensor:
    """Actions taken one by one, each from the whole history, with zeros for the newest action."""
    taken = []
    for t in steps:
        so_far = {name: x[0, : t + 1].clone() for name, x in given.items()}
        so_far["actions"][-1] = 0
        so_far["rewards"], so_far["timesteps"] = so_far["rewards"].reshape(1, -1), so_far["timesteps"][None]
        taken.append(model.get_action(**so_far))
    return torch.stack(taken)


@pytest.mark.parametrize("length", [1, 2, 5])
@torch.no_grad()
def test_acting_reads_what_one_window_over_the_episode_reads(length: int) -> None:
    model = build(memory_tokens=2, segment_length=length).eval()
    first, _ = window(1, 14)
    second, _ = window(1, 8, seed=5)
    for given, steps in (
        (first, 14),
        (second, 8),
        (first, 3),
    ):  # an episode's first step forgets the last episode
        whole = model(**given).action_preds[0, :steps]
        assert error(act(model, given, range(steps)), whole) < 1e-5
    assert error(act(model, first, range(9, 14)), model(**first).action_preds[0, 9:]) < 1e-5  # joined late


@pytest.mark.parametrize("padding", PADDINGS)
def test_windows_go_on_from_each_other(padding: str) -> None:
    model = build(memory_tokens=2, segment_length=2)
    episode, _ = window(2, 9)
    whole = model(**episode)
    before = model(**{name: x[:, :4] for name, x in episode.items()})
    assert isinstance(before, RateOutput) and before.memory.requires_grad
    assert torch.equal(model.last_memory, before.memory) and not model.last_memory.requires_grad
    real = real_steps(2, 8, padding)
    real = real & (real.cumsum(1) <= 5)
    later, _ = window(2, 8, seed=9)
    for name, x in later.items():
        for row in range(2):
            n = int(real[row].sum())
            x[row][real[row]] = episode[name][row, 4 : 4 + n]
    after = model(**later, attention_mask=real.float(), memory=before.memory)
    for row in range(2):
        n = int(real[row].sum())
        found = after.action_preds[row][real[row]]
        assert error(found, whole.action_preds[row, 4 : 4 + n]) < 1e-5
    after.action_preds[real].sum().backward()
    assert model.memory.initial.grad.abs().sum() > 0  # through the earlier window


def test_hidden_states_and_attentions_of_segments() -> None:
    model = build(memory_tokens=2, segment_length=2)
    given, _ = window(2, 5)
    out = model(**given, output_hidden_states=True, output_attentions=True)
    assert [x.shape for x in out.attentions] == [(2, 3, HEADS, 10, 10)] * 2
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(2, 3, HEADS, 10))
    assert (out.attentions[0][:, :, :, 2:8, 8:] == 0).all()  # no step sees what is written after it
    assert [x.shape for x in out.hidden_states] == [(2, 15, 16)] * 3
    assert torch.equal(out.hidden_states[-1], out.last_hidden_state)
    assert error(out.action_preds, model(**given).action_preds) < 1e-6


def test_an_originals_weights_begin_a_model_with_memory() -> None:
    theirs = original()
    model = RateModel.from_decision_transformer(theirs, memory_tokens=3, max_length=9, gate_heads=2)
    assert model.config.memory_tokens == 3 and model.memory.segment_length == 3
    assert torch.equal(model.embed_state.weight, theirs.embed_state.weight)
    with pytest.raises(ValueError, match="memory_tokens must be 0"):
        model.to_decision_transformer()


def test_beginnings_are_those_of_gpt2_but_for_the_memory() -> None:
    torch.manual_seed(0)
    model = RateModel(RateConfig(state_dim=4, memory_tokens=4, initializer_range=0.02))
    spread = {name: value.std().item() for name, value in model.named_parameters() if value.dim() > 1}
    for name, value in spread.items():
        wanted = 0.02
        if name.endswith(("attention.output.weight", "feed_forward.out.weight")):
            wanted /= 6**0.5
        elif "gate" in name:
            wanted = 128**-0.5 / 3**0.5
        assert 0.8 * wanted < value < 1.2 * wanted, name


@pytest.mark.parametrize("memory_tokens", [0, 2])
def test_two_hundred_updates(memory_tokens: int) -> None:
    torch.manual_seed(0)
    dropout = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
    model = RateModel(
        RateConfig(**(SMALL | dropout | {"memory_tokens": memory_tokens, "max_length": 6}))
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    told = nn.Linear(DS, DA)
    losses = []
    for update in range(200):
        given, real = window(8, 4, "left", first=update % 4, seed=update)
        given["actions"] = told(given["states"]).tanh().detach()
        out = model(**given, attention_mask=real.to(torch.float64))
        loss = (out.action_preds - given["actions"])[real].square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10]), (losses[:10], losses[-10:])


# --- In transformers' conventions ---------------------------------------------------------------------


@pytest.mark.parametrize("memory_tokens", [0, 2])
def test_saved_and_loaded(memory_tokens: int, tmp_path: Path) -> None:
    model = build(memory_tokens=memory_tokens).eval()
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "rate_decision_transformer" and saved["memory_tokens"] == memory_tokens
    assert {file.name for file in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}
    given, _ = window(2, 5)
    for loaded in (RateModel.from_pretrained(tmp_path), transformers.AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is RateModel
        assert loaded.config.to_dict() | {"_name_or_path": ""} == model.config.to_dict()
        assert torch.equal(loaded(**given).action_preds, model(**given).action_preds)
    assert type(transformers.AutoConfig.from_pretrained(tmp_path)) is RateConfig
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Exception, match=r"(?i)incomplete|invalid|safetensors"):
        RateModel.from_pretrained(tmp_path)


def test_folders_of_the_original(tmp_path: Path) -> None:
    theirs = original()
    theirs.save_pretrained(tmp_path)
    given, _ = window(2, 5)
    model = RateModel.from_decision_transformer(tmp_path)
    assert error(model(**given).action_preds, theirs(**given).action_preds) < 1e-5
    with pytest.raises(ValueError, match=r"'decision_transformer'.*from_decision_transformer"):
        RateModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("memory_tokens", [0, 2])
def test_module(memory_tokens: int) -> None:
    given, real = window(2, 5, "left", first=1)
    given["attention_mask"] = real.long()

    def call(model: nn.Module, dtype: torch.dtype) -> Tensor:
        typed = {n: x.to(dtype) if x.is_floating_point() else x for n, x in given.items()}
        return model(**typed).action_preds[real]

    check_module(lambda: build(memory_tokens=memory_tokens), call)
    model = build(memory_tokens=memory_tokens).eval()
    exported = torch.export.export(model, (), given, strict=False).module()
    torch.testing.assert_close(exported(**given).action_preds[real], call(model, torch.float32))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"states": None}, ValueError, "states must be given, got None"),
        ({"states": torch.zeros(2, 4, 5)}, ValueError, r"states must be \[B, K, 3\], got \[2, 4, 5\]"),
        ({"actions": torch.zeros(2, 3, DA)}, ValueError, r"actions must be \[2, 4, 2\], got \[2, 3, 2\]"),
        ({"returns_to_go": torch.zeros(2, 4)}, ValueError, r"returns_to_go must be \[2, 4, 1\]"),
        ({"timesteps": torch.full((2, 4), 130)}, ValueError, "timesteps must be from 0 to 129, got 130"),
        ({"timesteps": torch.zeros(2, 4)}, TypeError, "timesteps must be int64"),
        ({"attention_mask": torch.ones(2, 12)}, ValueError, r"attention_mask must be \[2, 4\]"),
        ({"memory": torch.zeros(2, 2, 16)}, ValueError, "memory must be None"),
    ],
)
def test_bad_arguments_are_named(change: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        build()(**(window(2, 4)[0] | change))


def test_bad_settings_are_named() -> None:
    for settings, message in (
        ({"add_cross_attention": True}, "add_cross_attention must be False"),
        ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn must be False"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"memory_tokens": "two"}, "memory_tokens"),
        ({"memory_tokens": 2, "gate_heads": 3}, "gate_heads"),
        ({"activation_function": "swish"}, "activation"),
    ):
        with pytest.raises((ValueError, StrictDataclassError), match=message):
            build(**settings)


def test_what_is_missing_without_transformers_is_said() -> None:
    code = """
import sys
import rate.compat.corl, rate.compat.kzl, rate.compat.kzl_atari
assert "transformers" not in sys.modules
sys.modules["transformers"] = None
try:
    import rate.compat.huggingface
except ImportError as error:
    assert "pip install 'rate-kernels[huggingface]'" in str(error), error
else:
    raise AssertionError("imported")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
