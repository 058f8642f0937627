"""Acting token by token gives what the model gives when it reads whole segments: fifty random models, environments
reset at random steps."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from rate import RATE, RateConfig
from rate_kernels.recurrence import native
from tests.rate import helpers

ENVS, SEGMENTS = 3, 4
TOLERANCE = {"native": 1e-4, "reference": 1e-10}
needs_native = pytest.mark.skipif(
    native.obstacle(torch.device("cpu")) is not None, reason=str(native.obstacle(torch.device("cpu")))
)


def random_config(seed: int) -> RateConfig:
    """Any model of the family: sizes that fill no vector, every switch."""
    rng = random.Random(seed)
    d_model, memory = rng.choice([6, 10, 16, 30, 32, 48]), rng.choice([0, 1, 2, 5, 17])
    observation = rng.choice(["vector", "vector", "discrete", "image"])
    shape = {"vector": (rng.choice([1, 3, 20]),), "discrete": (), "image": (1, 36, 36)}[observation]
    gating = rng.random() < 0.3
    return RateConfig(
        observation=observation,
        observation_shape=shape,
        num_observations=7 if observation == "discrete" else 0,
        normalize_observations=rng.random() < 0.5,
        action=rng.choice(["discrete", "continuous"]),
        action_size=rng.choice([1, 2, 5, 18]),
        action_scale=rng.choice([1.0, 2.5]),
        action_tanh=rng.random() < 0.5,
        return_scale=rng.choice([1.0, 100.0]),
        segment_length=rng.choice([1, 2, 3, 5, 12]),
        num_memory=memory,
        cache_len=rng.choice([0, 0, 1, 7, 40]),
        read_cache=rng.random() < 0.5,
        gate_heads=rng.choice([0, 1, 2]) if memory else 0,
        gate_activation=rng.choice(["relu", "leaky_relu", "tanh", "none"]),
        write_last_action=rng.random() < 0.75,
        d_model=d_model,
        num_layers=rng.choice([1, 2, 3]),
        num_heads=rng.choice([1, 2, 3]),
        d_head=rng.choice([2, 5, 16, 20]),
        d_inner=rng.choice([1, 24, 33] if gating else [0, 24, 33]),
        block=rng.choice(["pre_norm", "published"]),
        gating=gating,
        dropout=0.2,
    )


def random_model(seed: int) -> RATE:
    torch.manual_seed(seed)
    model = RATE(random_config(seed))
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        if model.config.observation == "vector" and model.config.normalize_observations:
            model.observation_encoder.mean.normal_()
            model.observation_encoder.std.uniform_(0.5, 2.0)
    return model


@dataclass
class Episode:
    """What one environment saw, did and gave, step by step; ``states`` after every segment."""

    observations: list[Tensor] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    actions: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    states: list[object] = field(default_factory=list)


def play(model: RATE, backend: str) -> list[Episode]:
    """Acts in several environments that are reset now and then."""
    config = model.config
    steps = SEGMENTS * config.segment_length + 2
    inputs = helpers.batch([steps] * ENVS, config, dtype=torch.float32)
    rng = np.random.default_rng(0)
    resets = rng.random((steps, ENVS)) < 0.3 / config.segment_length
    resets[0] = True
    resets[:, 0] = False  # one of them plays on
    resets[0, 0] = True
    actor = model.actor(ENVS, backend)
    engine = actor._reader.engine
    seen, step = [], engine.step
    engine.step = lambda *arguments: seen.append(step(*arguments)) or seen[-1]
    episodes: list[Episode] = []
    current: list[Episode] = [Episode()] * ENVS
    for t in range(steps):
        for env in np.flatnonzero(resets[t]):
            current[env] = Episode()
            episodes.append(current[env])
            actor.reset(float(rng.normal() * config.return_scale), [env])
        action = actor.act(inputs.observations[:, t], rng.normal(size=ENVS))
        for env, episode in enumerate(current):
            acted = len(episode.actions) + (not config.write_last_action)  # when its segment ended, if it did
            if acted and acted % config.segment_length == 0:
                episode.states.append(actor._reader.state(env))
            episode.observations.append(inputs.observations[env, t])
            episode.returns.append(float(np.float32(actor.return_to_go[env])))
            episode.actions.append(action[env].clone())
            episode.hidden.append(seen[-1].hidden[env])
            episode.predictions.append(seen[-1].predictions[env])
    return episodes


def check(model: RATE, episode: Episode, tolerance: float) -> int:
    """Reads ``episode`` segment by segment and compares; returns the number of states compared."""
    config, hidden = model.config, []
    hook = model.head.register_forward_pre_hook(lambda _, arguments: hidden.append(arguments[0][0]))
    state, k = None, config.segment_length
    for first in range(0, len(episode.actions), k):
        stop = min(first + k, len(episode.actions))
        observations = torch.stack(episode.observations[first:stop])[None]
        actions = torch.stack(episode.actions[first:stop])[None]
        returns = torch.tensor(episode.returns[first:stop])[None, :, None]
        written = actions if config.write_last_action else actions[:, :-1]
        hidden.clear()
        with torch.no_grad():
            out = model(observations, written, returns, state)
        expected = out.predictions[0]
        assert helpers.error(torch.stack(episode.predictions[first:stop]), expected) < tolerance
        assert helpers.error(torch.stack(episode.hidden[first:stop]), hidden[0]) < tolerance
        if config.action == "discrete" and config.action_size > 1:
            best, second = expected.topk(2, dim=-1).values.unbind(-1)
            difference = (torch.stack(episode.predictions[first:stop]) - expected).abs().amax(-1)
            clear = best - second > 2 * difference
            assert torch.equal(actions[0][clear], expected.argmax(-1)[clear])
            assert clear.any()
        state = out.state
        number = first // k
        if number >= len(episode.states):
            continue
        ours = episode.states[number]
        if state.memory is not None:
            assert helpers.error(ours.memory, state.memory) < tolerance
        assert [x.shape for x in ours.cache] == [x.shape for x in state.cache]
        for mine, theirs in zip(ours.cache, state.cache, strict=True):
            assert helpers.error(mine, theirs) < tolerance
    hook.remove()
    return len(episode.states)


@pytest.mark.parametrize("seed", range(50))
@needs_native
def test_native_equals_reading_whole_segments(seed):
    model = random_model(seed)
    episodes = play(model, "native")
    oracle = copy.deepcopy(model).double().eval()
    compared = [check(oracle, episode, TOLERANCE["native"]) for episode in episodes]
    assert max(compared) >= SEGMENTS and len(episodes) > ENVS


@pytest.mark.parametrize("seed", range(0, 50, 5))
def test_reference_equals_reading_whole_segments(seed):
    model = random_model(seed).double()
    for episode in play(model, "reference"):
        check(model.eval(), episode, TOLERANCE["reference"])
