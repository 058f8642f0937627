"""BC-LSTM: the same encoders, heads, training and acting around another core."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rate import RATE, RateConfig, models
from rate.lstm import BCLSTM
from rate.recurrence import batch_loss
from rate.training.options import TrainingOptions
from rate.training.trainer import make_optimizer
from tests.rate import helpers

INPUTS = {
    "vector": {"observation": "vector", "observation_shape": (3,), "action": "discrete"},
    "image": {"observation": "image", "observation_shape": (2, 36, 40), "action": "continuous"},
    "discrete": {"observation": "discrete", "observation_shape": (), "num_observations": 5},
}
LSTM = {"architecture": "lstm", "num_memory": 0, "gate_heads": 0}


def _model(seed: int = 0, **settings) -> BCLSTM:
    torch.manual_seed(seed)
    model = models.build(helpers.config(**LSTM | settings))
    assert isinstance(model, BCLSTM)
    return model.double()


@pytest.mark.parametrize("inputs", INPUTS)
def test_segments_give_what_one_pass_gives(inputs):
    model = _model(**INPUTS[inputs])
    whole = helpers.batch([9, 9], model.config)
    expected = _by_hand(model, whole)
    state, parts = None, []
    for s in whole.segments(3):
        out = model(s.observations, s.actions, s.returns_to_go, state)
        parts.append(out.predictions)
        state = out.state
    torch.testing.assert_close(torch.cat(parts, 1), expected)
    assert state.memory.shape == (2, 5, 16)


def _by_hand(model, batch):
    """The definition: token t is observation t beside action t - 1, where the first has "no action"."""
    discrete = model.config.action == "discrete"
    acted = F.pad(batch.actions, (1, 0), value=4)[:, :-1] if discrete else batch.actions[:, :-1]
    before = model.action_encoder(acted)
    if not discrete:
        before = F.pad(before, (0, 0, 1, 0))
    hidden, _ = model.lstm(torch.cat([model.observation_encoder(batch.observations), before], -1))
    return model.head(hidden)


@pytest.mark.parametrize("inputs", INPUTS)
def test_acting_reads_what_training_reads(inputs):
    model = _model(**INPUTS[inputs]).float().eval()
    config = model.config
    whole = helpers.batch([7, 7, 7], config, dtype=torch.float32)
    actor = model.actor(3)
    reader = actor._reader
    predicted, acted = [], []
    actor.reset(1.0)
    for t in range(7):
        if t == 2:  # a new episode in the middle one
            actor.reset(1.0, [1])
        predicted.append(reader.read(whole.observations[:, t], torch.zeros(3)))
        acted.append(whole.actions[:, t])
        reader.record(acted[-1])
    predicted = torch.stack(predicted, 1)
    with torch.no_grad():
        expected = model(whole.observations[:, :7], torch.stack(acted, 1), torch.zeros(3, 7, 1)).predictions
        again = model(
            whole.observations[1:2, 2:7], torch.stack(acted, 1)[1:2, 2:], torch.zeros(1, 5, 1)
        ).predictions
    torch.testing.assert_close(predicted[[0, 2]], expected[[0, 2]])
    torch.testing.assert_close(predicted[1, 2:], again[0])
    assert not torch.allclose(predicted[1, 2:], expected[1, 2:])


def test_a_saved_actor_goes_on():
    model = _model().float().eval()
    observations = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    first, second = (
        model.actor(2, temperature=1.0, generator=torch.Generator().manual_seed(0)),
        model.actor(2),
    )
    first.reset(1.0)
    for observation in observations[:3]:
        first.act(observation)
    second.load_state_bytes(first.state_bytes())
    first.temperature = 0.0
    for observation in observations[3:]:
        np.testing.assert_array_equal(first.act(observation), second.act(observation))
    with pytest.raises(ValueError, match="of 3 environments that reads steps"):
        model.actor(3).load_state_bytes(first.state_bytes())


@pytest.mark.parametrize("replay", [False, True])
def test_losses_reach_back_over_segments(replay):
    model = _model()
    batch = helpers.batch([9, 8], model.config)
    batch.observations.requires_grad_()
    gradient = {}
    for span in (None, 1):
        loss = batch_loss(model, batch, gradient_span=span, replay=replay).loss
        (gradient[span],) = torch.autograd.grad(loss, batch.observations)
    whole = F.cross_entropy(_by_hand(model, batch)[batch.mask], batch.actions[batch.mask])
    (expected,) = torch.autograd.grad(whole, batch.observations)
    torch.testing.assert_close(gradient[None], expected)
    assert not torch.allclose(gradient[1][:, :3], expected[:, :3])
    torch.testing.assert_close(gradient[1][:, 6:], expected[:, 6:])


def test_files_say_which_model_they_are_of(tmp_path):
    for model in (_model(normalize_observations=True), helpers.model()):
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder)
        loaded = models.load(folder)
        assert type(loaded) is type(model) and not loaded.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor.to(loaded.state_dict()[name].dtype)), name
    with pytest.raises(ValueError, match=r"config.architecture must be 'transformer' for RATE, got 'lstm'"):
        RATE.from_pretrained(tmp_path / "BCLSTM")
    with pytest.raises(ValueError, match=r"config.architecture must be 'lstm' for BCLSTM, got 'transformer'"):
        BCLSTM(helpers.config())
    with pytest.raises(FileNotFoundError, match="no model folder at"):
        models.load(tmp_path / "none")


def test_bad_arguments():
    model = _model()
    batch = helpers.batch([3], model.config)
    arguments = (batch.observations, batch.actions, batch.returns_to_go)
    with pytest.raises(ValueError, match=r"observations must be \[B, K, 3\]"):
        model(batch.observations[..., :2], *arguments[1:])
    with pytest.raises(ValueError, match=r"state.memory must be \[1, 5, 16\], got \[2, 5, 16\]"):
        model(*arguments, model.initial_state(2))
    with pytest.raises(ValueError, match=r"state.memory must be \[1, 5, 16\], got None"):
        model(*arguments, helpers.model(num_memory=0, gate_heads=0).initial_state(1))
    with pytest.raises(ValueError, match="architecture must be one of transformer, lstm, got 'gru'"):
        RateConfig(architecture="gru")


def test_weights_of_the_lstm_decay_and_biases_do_not():
    model = _model()
    decayed, others = (group["params"] for group in make_optimizer(model, TrainingOptions()).param_groups)
    ids = {id(parameter) for parameter in decayed}
    assert {name for name, p in model.named_parameters() if id(p) in ids} == {
        "observation_encoder.linear.weight", "head.weight",
        *(f"lstm.weight_{kind}_l{layer}" for kind in ("ih", "hh") for layer in (0, 1)),
    }  # fmt: skip
    assert len(decayed) + len(others) == len(list(model.parameters()))


def test_an_observation_that_is_not_finite_is_refused():
    actor = _model().float().actor(2)
    actor.reset(1.0)
    observation = np.zeros((2, 3), np.float32)
    first = actor.act(observation)
    kept = actor.state_bytes()
    observation[1, 2] = np.nan
    with pytest.raises(ValueError, match="observation of environment 1 is not finite"):
        actor.act(observation, np.zeros(2))
    assert actor.state_bytes() == kept and first.shape == (2,)
