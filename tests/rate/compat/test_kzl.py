"""kzl's gym Decision Transformer: equal to the original without memory, and with it exact in acting."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from rate.compat.kzl import DecisionTransformer, TrajectoryModel
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


def build(
    memory_tokens: int = 0, max_length: int | None = 6, seed: int = 0, **settings
) -> DecisionTransformer:
    settings = {"n_layer": 2, "n_head": HEADS, "activation_function": "relu", "max_ep_len": 130} | settings
    if memory_tokens:
        settings |= {"memory_tokens": memory_tokens} | (
            {} if "segment_length" in settings else {"segment_length": 3}
        )
    model = DecisionTransformer(DS, DA, D, max_length, **settings)
    randomise(model, seed)
    return model.eval()


def episode(steps: int, batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, actions, returns-to-go and timesteps, ``[B, T, ...]``."""
    generator = torch.Generator().manual_seed(seed)
    states, actions, rtg = (torch.randn(batch, steps, n, generator=generator) for n in (DS, DA, 1))
    return states, actions, rtg, torch.arange(steps).expand(batch, -1)


def acted(model: DecisionTransformer, given: tuple[Tensor, ...], steps: range) -> Tensor:
    """``[steps, Da]``: actions taken one by one, as the evaluation asks for them."""
    states, actions, rtg, timesteps = (part[0] for part in given)
    taken = []
    with torch.no_grad():
        for t in steps:
            so_far = torch.cat([actions[:t], torch.zeros(1, DA)])
            rewards = torch.zeros(t + 1)
            taken.append(
                model.get_action(
                    states[: t + 1], so_far, rewards, rtg[: t + 1].reshape(1, -1), timesteps[None, : t + 1]
                )
            )
    return torch.stack(taken)


def whole(model: DecisionTransformer, given: tuple[Tensor, ...]) -> Tensor:
    """``[T, Da]``: actions predicted in one pass."""
    states, actions, rtg, timesteps = given
    with torch.no_grad():
        return model(states, actions, None, rtg, timesteps)[1][0]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("steps", [1, 2, 20, 100])
def test_outputs_and_gradients_are_the_originals(steps: int, padding: str) -> None:
    activation, batch = "gelu_new" if steps == 20 else "relu", 3
    settings = {"activation_function": activation, "action_tanh": steps != 2}
    model = build(embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0, **settings).train()
    real = real_steps(batch, steps, padding)
    states, actions, rtg, _ = episode(steps, batch)
    actions = torch.where(real[..., None], actions, -10.0)  # as get_batch pads them
    timesteps = successive(real, torch.tensor([0, 7, 29]))
    mask = None if padding == "none" else real.to(torch.float64)
    found = model(states, actions, torch.randn(batch, steps, 1), rtg, timesteps, attention_mask=mask)
    theirs = {k: v.double() for k, v in model.original_state_dict().items()}
    parameters = {k: v.requires_grad_() for k, v in theirs.items() if "masked_bias" not in k}
    expected = originals.kzl(
        parameters,
        HEADS,
        activation,
        states.double(),
        actions.double(),
        rtg.double(),
        timesteps,
        mask,
        tanh=steps != 2,
    )
    for ours, original in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours[real].double(), original[real], rtol=1e-5, atol=1e-5)
    sum(part[real].square().mean() for part in found).backward()
    sum(part[real].square().mean() for part in expected).backward()
    ours = gradients(model, lambda m: m.original_state_dict())
    compared = 0
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            compared += 1
            torch.testing.assert_close(
                ours[name].double(), parameter.grad, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
    assert compared == len(model.state_dict())


def test_transformers_own_model_with_the_same_weights_agrees() -> None:
    """It is that code base's model ported, but for a position embedding, which is 0 here: not our reading of it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.DecisionTransformerConfig(
        state_dim=DS, act_dim=DA, hidden_size=D, max_ep_len=130, n_layer=2, n_head=HEADS, n_inner=4 * D
    )
    theirs, model = transformers.DecisionTransformerModel(config).eval(), build()
    state_dict = {
        name.replace("transformer.", "encoder.", 1): value
        for name, value in model.original_state_dict().items()
        if not name.endswith((".attn.bias", "masked_bias"))
    }
    state_dict["encoder.wpe.weight"] = torch.zeros(config.n_positions, D)
    theirs.load_state_dict(state_dict)
    (states, actions, rtg, timesteps), real = episode(12, 3), real_steps(3, 12, "left")
    out = theirs(
        states=states,
        actions=actions,
        rewards=rtg,
        returns_to_go=rtg,
        timesteps=timesteps,
        attention_mask=real.to(torch.int64),
    )
    found = model(states, actions, None, rtg, timesteps, attention_mask=real.to(torch.int64))
    expected = (out.state_preds, out.action_preds, out.return_preds)
    for ours, original in zip(found, expected, strict=True):
        torch.testing.assert_close(ours[real], original[real], rtol=1e-5, atol=1e-5)


def test_dropout_is_where_the_original_has_it() -> None:
    model = build(resid_pdrop=0.0, attn_pdrop=0.0, embd_pdrop=0.5).train()
    given = episode(4)
    read = lambda: model(*given[:2], None, *given[2:])[1]
    assert not torch.equal(read(), read())
    for settings in ({"attn_pdrop": 0.5}, {"resid_pdrop": 0.5}):
        none = {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0}
        model = build(**(none | settings)).train()
        assert not torch.equal(read(), read())
        model.eval()
        assert torch.equal(read(), read())


def test_settings_default_to_gpt2s() -> None:
    torch.manual_seed(0)
    model = DecisionTransformer(DS, DA, 48, max_length=4)
    block = model.transformer.blocks[0]
    assert len(model.transformer.blocks) == 12 and block.attention.heads == 12
    assert block.feed_forward.into.weight.shape == (192, 48) and block.feed_forward.activation == "gelu_new"
    assert block.attention.dropout_p == block.dropout.p == model.embed_dropout.p == 0.1
    assert 0.019 < block.attention.qkv.weight.std() < 0.021 and not block.attention.qkv.bias.any()
    assert model.embed_timestep.num_embeddings == 4096
    assert (model.state_dim, model.act_dim, model.max_length, model.hidden_size) == (DS, DA, 4, 48)
    assert isinstance(model, TrajectoryModel) and not [n for n in model.state_dict() if "memory" in n]


@pytest.mark.parametrize("max_length", [4, None])
def test_get_action_is_the_originals(max_length: int | None) -> None:
    model = build(max_length=max_length)
    states, actions, rtg, timesteps = episode(9)
    p = {k: v.double() for k, v in model.original_state_dict().items()}
    taken = acted(model, (states, actions, rtg, timesteps), range(9))
    for t in range(9):
        first = 0 if max_length is None else max(0, t + 1 - max_length)
        window = slice(first, t + 1)
        known = torch.cat([actions[:, :t], torch.zeros(1, 1, DA)], 1)
        expected = originals.kzl(
            p,
            HEADS,
            "relu",
            states[:, window].double(),
            known[:, window].double(),
            rtg[:, window].double(),
            timesteps[:, window],
        )[1][0, -1]
        torch.testing.assert_close(taken[t].double(), expected, rtol=1e-5, atol=1e-5)


def test_get_action_pads_as_the_original_and_hands_on_what_it_does_not_know() -> None:
    seen = {}

    class Subclass(DecisionTransformer):
        def forward(self, *arguments, attention_mask=None, **kwargs):
            seen.update(states=arguments[0], mask=attention_mask, **kwargs)
            return super().forward(*arguments, attention_mask=attention_mask)

    model = Subclass(DS, DA, D, 6, n_layer=1, n_head=1).eval()
    states, actions, rtg, timesteps = (part[0] for part in episode(2))
    model.get_action(states, actions, None, rtg, timesteps, extra="handed on")
    assert seen["states"].shape == (1, 6, DS) and not seen["states"][0, :4].any()
    assert seen["mask"].dtype == torch.int64 and seen["mask"].tolist() == [[0, 0, 0, 0, 1, 1]]
    assert seen["extra"] == "handed on"


@pytest.mark.parametrize(("segment_length", "gate_heads"), [(1, 1), (3, 0), (3, 2), (None, 1)])
def test_acting_with_memory_is_one_pass_over_the_episode(segment_length: int | None, gate_heads: int) -> None:
    model = build(2, 10, segment_length=segment_length, gate_heads=gate_heads)
    assert model.memory.segment_length == (segment_length or 4)
    read = []
    model.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0].shape[1]))
    for seed in (0, 1):  # the second episode starts by itself
        given = episode(14, seed=seed)
        taken = acted(model, given, range(14))
        # The running segment at every step, and each that has ended once more with its last action.
        assert max(read) <= model.memory.segment_length and sum(read) < 14 * (model.memory.segment_length + 1)
        torch.testing.assert_close(taken, whole(model, given), rtol=1e-5, atol=1e-5)
        read.clear()


def test_acting_that_does_not_continue_reads_what_it_is_given() -> None:
    model = build(2)
    one, other = episode(12, seed=0), episode(12, seed=1)
    expected, expected_other = whole(model, one), whole(model, other)
    # Two episodes in turn, a jump ahead, the same step again, and a history that was changed.
    for t in range(12):
        torch.testing.assert_close(acted(model, one, range(t, t + 1))[0], expected[t], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            acted(model, other, range(t, t + 1))[0], expected_other[t], rtol=1e-5, atol=1e-5
        )
    for steps in (range(3, 8), range(7, 8), range(11, 12)):
        torch.testing.assert_close(acted(model, one, steps), expected[list(steps)], rtol=1e-5, atol=1e-5)
    acted(model, one, range(8))
    changed = tuple(part.clone() for part in one)
    changed[1][0, 1] += 1.0
    taken = acted(model, changed, range(8, 9))[0]
    torch.testing.assert_close(taken, whole(model, changed)[8], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(taken, expected[8], atol=1e-4)


def test_acting_forgets_when_parameters_change() -> None:
    model, given = build(2), episode(9)
    acted(model, given, range(8))
    model.load_state_dict(build(2, seed=1).state_dict())
    torch.testing.assert_close(
        acted(model, given, range(8, 9))[0], whole(model, given)[8], rtol=1e-5, atol=1e-5
    )
    acted(model, given, range(8))
    model.train()
    with torch.no_grad():
        model.memory.initial.mul_(3.0)
    model.eval()
    torch.testing.assert_close(
        acted(model, given, range(8, 9))[0], whole(model, given)[8], rtol=1e-5, atol=1e-5
    )


def test_a_part_of_the_history_continues_too() -> None:
    model, given = build(2), episode(14)
    expected, window = whole(model, given), 4
    states, actions, rtg, timesteps = (part[0] for part in given)
    with torch.no_grad():
        for t in range(14):
            part = slice(max(0, t + 1 - window), t + 1)
            known = torch.cat([actions[:t], torch.zeros(1, DA)])[part]
            taken = model.get_action(states[part], known, None, rtg[part], timesteps[part])
            torch.testing.assert_close(taken, expected[t], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", PADDINGS)
def test_windows_with_memory_may_be_padded_on_any_side(padding: str) -> None:
    model, real = build(2), real_steps(3, 11, padding)
    states, actions, rtg, _ = episode(11, 3)
    timesteps = successive(real, torch.tensor([0, 4, 8]))
    found = model(states, actions, None, rtg, timesteps, attention_mask=real.to(torch.int64))[1]
    for row in range(3):
        alone = model(
            *(part[row, real[row]][None] for part in (states, actions)),
            None,
            rtg[row, real[row]][None],
            timesteps[row, real[row]][None],
        )[1]
        torch.testing.assert_close(found[row, real[row]], alone[0], rtol=1e-5, atol=1e-5)


def test_a_window_continues_an_earlier_one_with_its_memory() -> None:
    model, (states, actions, rtg, timesteps) = build(2), episode(12, 2)
    expected = model(states, actions, None, rtg, timesteps)[1]
    found, memory = [], None
    for start in (0, 6):
        part = slice(start, start + 6)
        out = model(states[:, part], actions[:, part], None, rtg[:, part], timesteps[:, part], memory=memory)
        memory = model.last_memory
        assert memory.shape == (2, 2, D) and not memory.requires_grad
        found.append(out[1])
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=1e-5, atol=1e-5)
    alone = model(states[:, 6:], actions[:, 6:], None, rtg[:, 6:], timesteps[:, 6:])[1]
    assert not torch.allclose(alone, expected[:, 6:], atol=1e-4)


@pytest.mark.parametrize("memory_tokens", [0, 2])
def test_behaves_as_any_module(memory_tokens: int) -> None:
    given = episode(7, 2)

    def call(model: nn.Module, dtype: torch.dtype) -> Tensor:
        states, actions, rtg, timesteps = (
            part.to(dtype) if part.is_floating_point() else part for part in given
        )
        return model(states, actions, None, rtg, timesteps)[1].detach()

    check_module(lambda: build(memory_tokens), call)
    model = build(memory_tokens)
    acted(model, tuple(part[:1] for part in given), range(4))
    copied = copy.deepcopy(model)  # in the middle of an episode, and after a backward pass
    model(*given[:2], None, *given[2:])[1].sum().backward()
    copy.deepcopy(model)
    if memory_tokens:
        alone = whole(copied, tuple(part[:1] for part in given))
        torch.testing.assert_close(acted(copied, given, range(4, 7)), alone[4:], rtol=1e-5, atol=1e-5)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7])
    arguments = (*given[:2], None, *given[2:], mask)
    exported = torch.export.export(model, arguments).module()
    for ours, theirs in zip(exported(*arguments), model(*arguments), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"states": (2, 4, 9)}, ValueError, r"states must be \[B, K, 5\], got \[2, 4, 9\]"),
        ({"states": (4, 5)}, ValueError, "states must be"),
        ({"actions": (2, 3, 3)}, ValueError, r"actions must be \[2, 4, 3\], got \[2, 3, 3\]"),
        ({"returns_to_go": (2, 4)}, ValueError, r"returns_to_go must be \[2, 4, 1\]"),
        ({"timesteps": (2, 5)}, ValueError, r"timesteps must be \[2, 4\]"),
        ({"timesteps": 130}, ValueError, "timesteps must be from 0 to 129, got 0 to 130"),
        ({"timesteps": -1}, ValueError, "timesteps must be from 0"),
        ({"timesteps": 0.5}, TypeError, "timesteps must be int64"),
        ({"attention_mask": (2, 12)}, ValueError, r"attention_mask must be \[2, 4\]"),
        ({"memory": (2, 1, D)}, ValueError, r"memory must be \[2, 2, 16\]"),
    ],
)
def test_bad_input_is_named(change: dict, error: type[Exception], message: str) -> None:
    states, actions, rtg, timesteps = episode(4, 2)
    given = {"states": states, "actions": actions, "returns_to_go": rtg, "timesteps": timesteps}
    ((name, value),) = change.items()
    if isinstance(value, tuple):
        given[name] = torch.zeros(value, dtype=torch.int64 if name == "timesteps" else torch.float32)
    else:
        given[name] = timesteps * 0 + value if isinstance(value, float) else timesteps.clone()
        given[name][0, -1] = value
    with pytest.raises(error, match=message):
        build(2)(rewards=None, **given)


def test_bad_settings_are_named() -> None:
    for settings, name in (
        ({"n_head": 3}, "heads"),
        ({"activation_function": "softmax"}, "activation"),
        ({"memory_tokens": -1}, "memory_tokens"),
        ({"memory_tokens": 1, "segment_length": 0}, "segment_length"),
        ({"memory_tokens": 1, "max_length": None}, "segment_length"),
        ({"memory_tokens": 1, "gate_heads": 3}, "gate_heads"),
    ):
        with pytest.raises(ValueError, match=name):
            DecisionTransformer(DS, DA, 16, **({"n_head": 2, "n_layer": 1, "max_length": 6} | settings))
    with pytest.raises(TypeError, match="n_heads"):
        DecisionTransformer(DS, DA, 16, n_heads=2)
    with pytest.raises(ValueError, match="memory must be None"):
        states, actions, rtg, timesteps = episode(2)
        build()(states, actions, None, rtg, timesteps, memory=torch.zeros(1, 2, D))
    for shorter in range(3):
        states, actions, rtg, timesteps = (part[0] for part in episode(3))
        given = [actions, rtg, timesteps]
        given[shorter] = given[shorter][1:]
        with pytest.raises(ValueError, match=("actions", "returns_to_go", "timesteps")[shorter]):
            build().get_action(states, given[0], None, *given[1:])


def test_the_base_class_predicts_nothing() -> None:
    model = TrajectoryModel(DS, DA, max_length=4)
    assert (model.state_dim, model.act_dim, model.max_length) == (DS, DA, 4)
    actions = torch.ones(2, DA)
    assert list(itertools.chain(model(None, actions, None))) == [None] * 3
    assert torch.equal(model.get_action(None, actions, None), torch.zeros(DA))
