"""CORL's Decision Transformer: equal to the original without memory, and with it exact in acting."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rate.compat.corl import DecisionTransformer
from rate_kernels import SegmentLayout
from tests.rate.compat import originals
from tests.rate.compat.helpers import (
    PADDINGS,
    check_module,
    gradients,
    randomise,
    real_steps,
    successive,
)

DS, DA, D, HEADS = 5, 3, 16, 2


def build(memory_tokens: int = 0, seq_len: int = 6, seed: int = 0, **settings) -> DecisionTransformer:
    settings = {"episode_len": 130, "max_action": 2.0} | settings
    if memory_tokens:
        settings = {"memory_tokens": memory_tokens, "segment_length": 3} | settings
    model = DecisionTransformer(DS, DA, seq_len, embedding_dim=D, num_layers=2, num_heads=HEADS, **settings)
    randomise(model, seed)
    return model.eval()


def episode(steps: int, batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, actions, returns-to-go and time steps, ``[B, T, ...]``."""
    generator = torch.Generator().manual_seed(seed)
    states, actions = (torch.randn(batch, steps, n, generator=generator) for n in (DS, DA))
    returns = torch.randn(batch, steps, generator=generator)
    return states, actions, returns, torch.arange(steps).expand(batch, -1)


@torch.no_grad()
def acted(model: DecisionTransformer, given: tuple[Tensor, ...], steps: range) -> list[Tensor]:
    """What the model predicts for the window of each step, as ``eval_rollout`` calls it."""
    states, actions, returns, time_steps = given
    predicted = []
    for t in steps:
        known = actions.clone()
        known[:, t:] = 0.0  # buffers of zeros, filled step by step
        parts = (states, known, returns, time_steps)
        predicted.append(model(*(part[:, : t + 1][:, -model.seq_len :] for part in parts)))
    return predicted


def whole(model: DecisionTransformer, given: tuple[Tensor, ...]) -> Tensor:
    """``[B, T, Da]``: one pass, with gradients and so not taken for acting."""
    return model(*given)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("steps", [1, 2, 20, 100])
def test_outputs_and_gradients_are_the_originals(steps: int, padding: str) -> None:
    model, batch = build(seq_len=steps).train(), 3
    real = real_steps(batch, steps, padding)
    states, actions, returns, _ = episode(steps, batch)
    time_steps = successive(real, torch.tensor([0, 7, 29]))
    ignored = (
        None if padding == "none" else ~real.to(torch.float64).to(torch.bool)
    )  # as the training loop does
    found = model(
        states=states, actions=actions, returns_to_go=returns, time_steps=time_steps, padding_mask=ignored
    )
    theirs = {k: v for k, v in model.original_state_dict().items() if "causal_mask" not in k}
    parameters = {k: v.double().requires_grad_() for k, v in theirs.items()}
    doubles = (part.double() for part in (states, actions, returns))
    expected = originals.corl(parameters, HEADS, 2.0, *doubles, time_steps, ignored)
    assert found.dtype == torch.float32 and found.shape == (batch, steps, DA)
    torch.testing.assert_close(found[real].double(), expected[real], rtol=1e-5, atol=1e-5)
    found[real].square().mean().backward()
    expected[real].square().mean().backward()
    ours = gradients(model, lambda m: m.original_state_dict())
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        torch.testing.assert_close(
            ours[name].double(), parameter.grad, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert len(parameters) == len(model.state_dict())


def test_attention_is_torchs_own_with_the_same_weights() -> None:
    model, x = build(), torch.randn(3, 9, D)
    theirs = nn.MultiheadAttention(D, HEADS, batch_first=True)
    parts = model.original_state_dict().items()
    theirs.load_state_dict(
        {
            name.removeprefix("blocks.1.attention."): value
            for name, value in parts
            if "blocks.1.attention" in name
        }
    )
    blocked = model.original_state_dict()["blocks.1.causal_mask"][:9, :9]
    expected, _ = theirs(x, x, x, attn_mask=blocked, need_weights=False)
    found = model.transformer.blocks[1].attention(x, SegmentLayout(write_memory=False), None)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_dropout_is_where_the_original_has_it() -> None:
    given = episode(4)
    for name in ("attention_dropout", "residual_dropout", "embedding_dropout"):
        model = build(**{name: 0.5}).train()
        assert not torch.equal(whole(model, given), whole(model, given))
        model.eval()
        assert torch.equal(whole(model, given), whole(model, given))


def test_settings_default_to_the_originals() -> None:
    torch.manual_seed(0)
    model = DecisionTransformer(DS, DA)
    block = model.transformer.blocks[0]
    assert len(model.transformer.blocks) == 4 and block.attention.heads == 8
    assert block.feed_forward.into.weight.shape == (512, 128) and block.feed_forward.activation == "gelu"
    assert block.attention.dropout_p == block.dropout.p == model.emb_drop.p == 0.0
    assert model.timestep_emb.num_embeddings == 1010 and 0.019 < model.timestep_emb.weight.std() < 0.021
    assert 0.019 < block.feed_forward.into.weight.std() < 0.021 and not block.feed_forward.into.bias.any()
    xavier = (6 / (4 * 128)) ** 0.5  # the bound of what MultiheadAttention draws its joined weights from
    assert 0.99 * xavier < block.attention.qkv.weight.abs().max() <= xavier
    assert (model.seq_len, model.episode_len, model.embedding_dim, model.max_action) == (10, 1000, 128, 1.0)
    assert (model.state_dim, model.action_dim) == (DS, DA)


@pytest.mark.parametrize("memory_tokens", [0, 2])
def test_predictions_stay_within_max_action(memory_tokens: int) -> None:
    model = build(memory_tokens, max_action=0.5)
    nn.init.constant_(model.action_head[0].bias, 50.0)
    assert torch.equal(whole(model, episode(4)), torch.full((1, 4, DA), 0.5))


@pytest.mark.parametrize(
    ("seq_len", "segment_length", "gate_heads"),
    [(9, None, 1), (9, 9, 2), (4, 1, 1), (2, None, 0), (7, 3, 1), (3, 8, 1)],
)
def test_acting_with_memory_is_one_pass_over_the_episode(
    seq_len: int, segment_length: int | None, gate_heads: int
) -> None:
    """Windows may hold several segments, one, or less than one."""
    model = build(2, seq_len, segment_length=segment_length, gate_heads=gate_heads)
    read = []
    model.memory.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0].shape[1]))
    for seed in (0, 1):  # the second episode starts by itself
        given = episode(20, seed=seed)
        predicted = acted(model, given, range(20))
        # The running segment at every step, and each that has ended once more with its last action.
        length = model.memory.segment_length
        assert max(read) <= length and sum(read) < 20 * (length + 1)
        expected = whole(model, given)
        for t, window in enumerate(predicted):
            torch.testing.assert_close(window, expected[:, : t + 1][:, -seq_len:], rtol=1e-5, atol=1e-5)
        read.clear()


def test_a_call_that_does_not_continue_reads_what_it_is_given() -> None:
    model, given = build(2), episode(20)
    alone = lambda t, steps: whole(model, tuple(part[:, t + 1 - steps : t + 1] for part in given))
    for name, disturb in {
        "reset": lambda: model.reset(),
        "train and eval": lambda: model.train().eval(),
        "load_state_dict": lambda: model.load_state_dict(model.state_dict()),
        "another episode": lambda: acted(model, episode(20, seed=1), range(11)),
        "a step left out": lambda: acted(model, given, range(9)),
        "a step taken twice": lambda: acted(model, given, range(11, 12)),
    }.items():
        acted(model, given, range(11))
        disturb()
        found = acted(model, given, range(11, 12))[0]
        torch.testing.assert_close(
            found, alone(11, 6), rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    acted(model, given, range(11))
    assert not torch.allclose(acted(model, given, range(11, 12))[0], alone(11, 6), atol=1e-4)


def test_only_acting_is_taken_for_acting() -> None:
    model, given = build(2), episode(20)
    window = lambda t: tuple(part[:, t - 5 : t + 1] for part in given)
    expected = whole(model, window(11))
    for name, call in {
        "gradients": lambda: model(*window(11)),
        "a mask": lambda: model(*window(11), torch.zeros(1, 6, dtype=torch.bool)),
        "several rows": lambda: model(*(part.expand(2, *part.shape[1:]) for part in window(11)))[:1],
        "memory": lambda: model(*window(11), memory=model.memory.initial[None]),
    }.items():
        acted(model, given, range(11))
        with torch.set_grad_enabled(name == "gradients"):
            torch.testing.assert_close(
                call(), expected, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
    # None of them is part of the episode, which goes on.
    found = acted(model, given, range(11, 12))[0]
    torch.testing.assert_close(found, whole(model, given)[:, 6:12], rtol=1e-5, atol=1e-5)
    model.train()  # validation during training: dropout is 0 here, and nothing is carried
    acted(model, given, range(11))
    torch.testing.assert_close(acted(model, given, range(11, 12))[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", PADDINGS)
def test_windows_with_memory_may_be_padded_on_any_side(padding: str) -> None:
    model, real = build(2), real_steps(3, 11, padding)
    states, actions, returns, _ = episode(11, 3)
    time_steps = successive(real, torch.tensor([0, 4, 8]))
    found = model(states, actions, returns, time_steps, ~real)
    for row in range(3):
        alone = model(*(part[row, real[row]][None] for part in (states, actions, returns, time_steps)))
        torch.testing.assert_close(found[row, real[row]], alone[0], rtol=1e-5, atol=1e-5)


def test_a_window_continues_an_earlier_one_with_its_memory() -> None:
    model, given = build(2), episode(12, 2)
    expected = whole(model, given)
    first = model(*(part[:, :6] for part in given))
    memory = model.last_memory
    assert memory.shape == (2, 2, D) and not memory.requires_grad
    second = model(*(part[:, 6:] for part in given), memory=memory)
    torch.testing.assert_close(torch.cat([first, second], 1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory_tokens", [0, 2])
def test_behaves_as_any_module(memory_tokens: int) -> None:
    given = episode(7, 2)

    def call(model: nn.Module, dtype: torch.dtype) -> Tensor:
        return model(*(part.to(dtype) if part.is_floating_point() else part for part in given)).detach()

    check_module(lambda: build(memory_tokens), call)
    model, one = build(memory_tokens), tuple(part[:1] for part in given)
    acted(model, one, range(4))
    copied = copy.deepcopy(model)  # in the middle of an episode, and after a backward pass
    whole(model, given).sum().backward()
    copy.deepcopy(model)
    if memory_tokens:
        torch.testing.assert_close(acted(copied, one, range(4, 5))[0], whole(copied, one)[:, :5])
    mask = torch.tensor([[False] * 5 + [True] * 2, [False] * 7])
    exported = torch.export.export(model, (*given, mask)).module()
    torch.testing.assert_close(exported(*given, mask), model(*given, mask))
    with torch.no_grad():  # acting is not exported: a program has no memory of calls
        exported = torch.export.export(model, one).module()
    torch.testing.assert_close(exported(*one), whole(model, one))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"states": (2, 4, 9)}, ValueError, r"states must be \[B, K, 5\], got \[2, 4, 9\]"),
        ({"states": (2, 0, 5)}, ValueError, "states must hold at least one step"),
        ({"actions": (2, 3, 3)}, ValueError, r"actions must be \[2, 4, 3\], got \[2, 3, 3\]"),
        ({"returns_to_go": (2, 4, 1)}, ValueError, r"returns_to_go must be \[2, 4\], got \[2, 4, 1\]"),
        ({"time_steps": (2, 5)}, ValueError, r"time_steps must be \[2, 4\]"),
        ({"time_steps": 136}, ValueError, "time_steps must be from 0 to 135, got 0 to 136"),
        ({"time_steps": 0.5}, TypeError, "time_steps must be int64"),
        ({"padding_mask": (2, 12)}, ValueError, r"padding_mask must be \[2, 4\]"),
        ({"padding_mask": (2, 4)}, TypeError, "padding_mask must be bool, True for padding"),
        ({"memory": (2, 1, D)}, ValueError, r"memory must be \[2, 2, 16\]"),
    ],
)
def test_bad_input_is_named(change: dict, error: type[Exception], message: str) -> None:
    states, actions, returns, time_steps = episode(4, 2)
    given = {"states": states, "actions": actions, "returns_to_go": returns, "time_steps": time_steps}
    ((name, value),) = change.items()
    if isinstance(value, tuple):
        given[name] = torch.zeros(value, dtype=torch.int64 if name == "time_steps" else torch.float32)
    else:
        given[name] = time_steps * 0 + value if isinstance(value, float) else time_steps.clone()
        given[name][0, -1] = value
    with pytest.raises(error, match=message):
        build(2)(**given)


def test_bad_settings_are_named() -> None:
    for settings, name in (
        ({"num_heads": 3}, "heads"),
        ({"memory_tokens": -1}, "memory_tokens"),
        ({"memory_tokens": 1, "segment_length": 0}, "segment_length"),
        ({"memory_tokens": 1, "gate_heads": 3}, "gate_heads"),
        ({"memory_tokens": 1, "seq_len": 1}, "seq_len"),
    ):
        with pytest.raises(ValueError, match=name):
            DecisionTransformer(DS, DA, **({"embedding_dim": 16, "num_heads": 2} | settings))
    with pytest.raises(ValueError, match="memory must be None"):
        build()(*episode(2), memory=torch.zeros(1, 2, D))
