"""The model: shapes of the whole family, fewer actions, left padding, checks, compilation."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rate import RATE, RateConfig, SegmentState
from tests.rate import helpers

K, SEGMENTS = 3, 3
FAMILY = ["dt", "dt-long", "rmt", "trxl", "gtrxl", "rate"]
INPUTS = {
    "vector": {"observation": "vector", "observation_shape": (3,), "action": "discrete"},
    "image": {"observation": "image", "observation_shape": (2, 36, 40), "action": "continuous"},
    "discrete": {"observation": "discrete", "observation_shape": (), "num_observations": 5},
}


def _member(name: str, seed: int = 0, **settings) -> RATE:
    base = dataclasses.asdict(helpers.config(segment_length=K)) | settings
    torch.manual_seed(seed)
    return RATE(RateConfig.family(name, SEGMENTS, **base)).double().eval()


def _segments(model: RATE, batch: int = 2) -> list[tuple[torch.Tensor, ...]]:
    """All segments of a window of SEGMENTS * K steps, in the model's own segment length."""
    whole = helpers.batch([SEGMENTS * K] * batch, model.config)
    return [(s.observations, s.actions, s.returns_to_go) for s in whole.segments(model.config.segment_length)]


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("name", FAMILY)
def test_shapes(name, inputs):
    model = _member(name, **INPUTS[inputs])
    config, state = model.config, None
    segments = _segments(model)
    assert len(segments) == (1 if name == "dt-long" else SEGMENTS)
    for number, segment in enumerate(segments, 1):
        out = model(*segment, state)
        state = out.state
        assert out.predictions.shape == (2, config.segment_length, 4)
        assert out.predictions.isfinite().all()
        tokens = config.num_memory * 2 + 3 * config.segment_length
        assert [tuple(layer.shape) for layer in state.cache] == (
            [(2, min(number * tokens, config.cache_len), 16)] * 2 if config.cache_len else []
        )
        assert not any(layer.requires_grad for layer in state.cache)
        if name in ("rate", "rmt"):
            assert state.memory.shape == (2, 2, 16)
        else:
            assert state.memory is None
    assert (model.gate is not None) == (name == "rate")
    assert any("attention_gate" in parameter for parameter in model.state_dict()) == (name == "gtrxl")


@pytest.mark.parametrize("name", ["rmt", "trxl", "gtrxl", "rate"])
@pytest.mark.parametrize("block", ["pre_norm", "published"])
def test_earlier_segments_matter(name, block):
    model = _member(name, block=block)
    first, second, _ = _segments(model)
    other = (first[0] + 1, *first[1:])
    states = [model(*segment).state for segment in (first, other)]
    predictions = [model(*second, state).predictions for state in states]
    assert (predictions[0] - predictions[1]).abs().max() > 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"block": "published"},
        {"d_inner": 0},
        {"block": "published", "d_inner": 0},
        {"cache_len": 20, "read_cache": True},
        {"gating": True, "cache_len": 4},
        {"gating": True, "block": "published"},
        {"num_memory": 0},
        {"action": "continuous", "action_scale": 3.0},
        {"gate_activation": "tanh", "gate_heads": 4},
    ],
)
def test_one_action_fewer_gives_the_same_predictions(settings):
    model = helpers.model(segment_length=K, **settings).eval()
    state = None
    for seen, acted, asked in _segments(model):
        whole = model(seen, acted, asked, state)
        fewer = model(seen, acted[:, :-1], asked, state, write_memory=False)
        assert helpers.error(fewer.predictions, whole.predictions) < 1e-12
        kept = state or model.initial_state(2)
        if kept.memory is not None:
            assert torch.equal(fewer.state.memory, kept.memory)
        assert [c.shape for c in fewer.state.cache] == [c.shape for c in kept.cache]
        # A prediction sees its own step's observation, but no later step and not its own action.
        later = acted.clone()
        later[:, 1] = (later[:, 1] + 1) % 4 if later.dim() == 2 else -later[:, 1]
        changed = model(seen, later, asked, state).predictions
        assert helpers.error(changed[:, :2], whole.predictions[:, :2]) < 1e-12
        assert helpers.error(changed[:, 2], whole.predictions[:, 2]) > 1e-6
        state = whole.state


@pytest.mark.parametrize("settings", [{}, {"num_memory": 0}, {"block": "published", "cache_len": 8}])
@pytest.mark.parametrize("changed", ["observations", "returns_to_go"])
def test_predictions_see_their_own_step_and_none_later(settings, changed):
    model = helpers.model(segment_length=K, **settings).eval()
    seen, acted, asked = _segments(model)[0]
    plain = model(seen, acted, asked).predictions
    other = {"observations": seen.clone(), "actions": acted, "returns_to_go": asked.clone()}
    other[changed][:, 1] += 1
    predictions = model(**other).predictions
    assert helpers.error(predictions[:, 0], plain[:, 0]) < 1e-12
    assert helpers.error(predictions[:, 1], plain[:, 1]) > 1e-4
    assert helpers.error(predictions[:, 2], plain[:, 2]) > 1e-6


def test_continuous_actions_stay_in_their_scale():
    model = helpers.model(action="continuous", action_scale=3.0).eval()
    with torch.no_grad():
        model.head.linear.weight.mul_(100)
    predictions = model(*_segments(model)[0]).predictions
    assert 2.9 < predictions.abs().max() <= 3.0


@pytest.mark.parametrize("block", ["pre_norm", "published"])
def test_left_padding_is_seen_by_nobody(block):
    # Without memory tokens only distances matter, and they are the same with steps before.
    model = helpers.model(num_memory=0, gate_heads=0, segment_length=5, block=block).eval()
    batch = helpers.batch([5, 5, 5], model.config)
    inputs = batch.observations, batch.actions, batch.returns_to_go
    padding = torch.tensor([0, 2, 4])
    padded = model(*inputs, padding=padding).predictions
    for row, steps in enumerate(padding.tolist()):
        alone = model(*(tensor[row : row + 1, steps:] for tensor in inputs)).predictions
        assert helpers.error(padded[row : row + 1, steps:], alone) < 1e-12
    assert padded.isfinite().all()
    assert helpers.error(padded[1:], model(*inputs).predictions[1:]) > 1e-3


def test_left_padding_does_not_reach_the_memory():
    model = helpers.model(segment_length=5).eval()
    batch = helpers.batch([5, 5], model.config)
    padding = torch.tensor([0, 3])
    outs = []
    for value in (0.0, 7.0):
        observations = batch.observations.clone()
        observations[1, :3] = value
        outs.append(model(observations, batch.actions, batch.returns_to_go, padding=padding))
    assert torch.equal(outs[0].state.memory, outs[1].state.memory)
    assert torch.equal(outs[0].predictions[1, 3:], outs[1].predictions[1, 3:])


def test_observations_are_normalised():
    plain = helpers.model().eval()
    model = helpers.model(normalize_observations=True).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 2.0, 4.0])
    model.observation_encoder.mean.copy_(mean)
    model.observation_encoder.std.copy_(std)
    seen, *rest = _segments(plain)[0]
    expected = plain(seen, *rest).predictions
    assert helpers.error(model(seen * std + mean, *rest).predictions, expected) < 1e-6


def test_return_scale():
    model, plain = helpers.model(return_scale=50.0).eval(), helpers.model().eval()
    seen, acted, asked = _segments(plain)[0]
    assert (
        helpers.error(model(seen, acted, 50 * asked).predictions, plain(seen, acted, asked).predictions)
        < 1e-12
    )


def _good(**settings):
    model = helpers.model(dtype=torch.float32, **settings).eval()
    batch = helpers.batch([K, K], model.config, dtype=torch.float32)
    return model, {
        "observations": batch.observations,
        "actions": batch.actions,
        "returns_to_go": batch.returns_to_go,
        "state": model.initial_state(2),
    }


CONTINUOUS = {"action": "continuous"}
BAD = [
    ({}, {"observations": torch.zeros(2, K, 4)}, r"observations must be \[B, K, 3\], got \[2, 3, 4\]"),
    ({}, {"observations": torch.zeros(2, 3)}, r"observations must be \[B, K, 3\], got \[2, 3\]"),
    ({}, {"observations": torch.zeros(2, 0, 3)}, "observations must hold at least one step"),
    (INPUTS["discrete"], {"observations": torch.zeros(2, K)}, "observations must be int64 or int32, got torch.float32"),
    ({}, {"actions": torch.zeros(2, K - 2).long()}, r"actions must be \[2, 3\], or one step fewer, got \[2, 1\]"),
    ({}, {"actions": torch.zeros(2, K, 4)}, r"actions must be \[2, 3\], or one step fewer, got \[2, 3, 4\]"),
    ({}, {"actions": torch.zeros(1, K).long()}, r"actions must be \[2, 3\]"),
    ({}, {"actions": torch.zeros(2, K)}, "actions must be int64 or int32, got torch.float32"),
    (CONTINUOUS, {"actions": torch.zeros(2, K, 5)}, r"actions must be \[2, 3, 4\]"),
    (CONTINUOUS, {"actions": torch.zeros(2, K, 4).long()}, "actions must be floating point, got torch.int64"),
    ({}, {"returns_to_go": torch.zeros(2, K)}, r"returns_to_go must be \[2, 3, 1\], got \[2, 3\]"),
    ({}, {"returns_to_go": torch.zeros(2, K, 1).long()}, "returns_to_go must be floating point"),
    ({}, {"padding": torch.zeros(3).long()}, r"padding must be \[2\], got \[3\]"),
    ({}, {"state": SegmentState(None, [])}, r"state.memory must be \[2, 2, 16\], got None"),
    ({}, {"state": SegmentState(torch.zeros(1, 2, 16), [])}, r"state.memory must be \[2, 2, 16\], got \[1, 2, 16\]"),
    ({"num_memory": 0}, {"state": SegmentState(torch.zeros(2, 2, 16), [])}, r"state.memory must be None, got \[2, 2"),
    ({"cache_len": 4}, {"state": SegmentState(torch.zeros(2, 2, 16), [])}, "state.cache must hold 2 layers, got 0"),
    (
        {"cache_len": 4},
        {"state": SegmentState(torch.zeros(2, 2, 16), [torch.zeros(2, 3, 16), torch.zeros(2, 3, 8)])},
        r"state.cache\[1\] must be \[2, c, 16\], got \[2, 3, 8\]",
    ),
    (
        {"cache_len": 4},
        {"state": SegmentState(torch.zeros(2, 2, 16), [torch.zeros(2, 3, 16), torch.zeros(2, 4, 16)])},
        "state.cache must have the same length in every layer",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "change", "message"), BAD)
def test_arguments_that_do_not_fit_are_named(settings, change, message):
    model, good = _good(**settings)
    assert model(**good).predictions.shape == (2, K, 4)
    with pytest.raises((ValueError, TypeError), match=message) as raised:
        model(**good | change)
    assert "\n" not in str(raised.value)


def test_compiled_without_breaks():
    model = helpers.model(dtype=torch.float32, num_layers=1, cache_len=10)
    compiled = torch.compile(model, fullgraph=True)
    batch = helpers.batch([K, K], model.config, dtype=torch.float32)
    inputs = batch.observations, batch.actions, batch.returns_to_go

    def gradients(run):
        out = run(*inputs, model(*inputs).state)
        loss = out.predictions.square().sum() + out.state.memory.sum()
        return out.predictions, torch.autograd.grad(loss, list(model.parameters()))

    ours, ours_gradients = gradients(compiled)
    eager, eager_gradients = gradients(model)
    assert helpers.error(ours, eager) < 1e-5
    for (name, _), actual, expected in zip(
        model.named_parameters(), ours_gradients, eager_gradients, strict=True
    ):
        if name != "gate.key.bias":  # without effect: a softmax does not see it
            assert helpers.error(actual, expected) < 1e-4, name


def test_compiled_segment_after_segment():
    """The cache grows, then the batch changes: the compiler makes sizes symbolic, and results stay those of eager."""
    model = helpers.model(dtype=torch.float32, num_layers=1, cache_len=25)
    compiled = torch.compile(model, fullgraph=True)
    for size in (3, 5):
        batch = helpers.batch([K] * size, model.config, dtype=torch.float32)
        state = compiled_state = None
        for _ in range(3):
            inputs = batch.observations, batch.actions, batch.returns_to_go
            out, compiled_out = model(*inputs, state), compiled(*inputs, compiled_state)
            assert helpers.error(compiled_out.predictions, out.predictions) < 1e-5
            state, compiled_state = out.state, compiled_out.state
