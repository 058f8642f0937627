"""Evaluation in vector environments against a loop over single environments."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rate.envs import TMazeVector
from rate.evaluation import evaluate
from tests.rate import helpers


class Walk(gymnasium.Env):
    """Episodes of 1 to 7 steps whose rewards depend on every observation and action; success is reported."""

    def __init__(self, observation_space, action_space, report=True):
        self.observation_space, self.action_space, self.report = observation_space, action_space, report

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._left = int(self.np_random.integers(1, 8))
        return self._observe(), {}

    def _observe(self):
        space = self.observation_space
        if isinstance(space, spaces.Discrete):
            self._seen = self.np_random.integers(space.start, space.start + space.n)
        elif space.dtype == np.uint8:
            self._seen = self.np_random.integers(0, 256, space.shape, np.uint8)
        else:
            self._seen = self.np_random.normal(size=space.shape).astype(space.dtype)
        return self._seen

    def step(self, action):
        assert self.action_space.contains(action), action
        middle = 127.5 if self.observation_space.dtype == np.uint8 else 0.0
        reward = float(np.sum(action) * (np.mean(self._seen) - middle))
        self._left -= 1
        ended = self._left == 0
        info = {"success": reward > 0} if ended and self.report else {}
        return self._observe(), reward, ended and reward > 0, ended and reward <= 0, info


VECTOR, ACTIONS = spaces.Box(-9, 9, (3,), np.float32), spaces.Discrete(4)
SPACES = {
    "vector": (VECTOR, ACTIONS, {}),
    "counted from elsewhere": (
        spaces.Discrete(5, start=3),
        spaces.Discrete(4, start=-2),
        {"observation": "discrete", "observation_shape": (), "num_observations": 5},
    ),
    "images, channels last, clipped actions": (
        spaces.Box(0, 255, (36, 38, 2), np.uint8),
        spaces.Box(-0.25, 0.5, (2,), np.float32),
        {"observation": "image", "observation_shape": (2, 36, 38), "action": "continuous", "action_size": 2},
    ),
}


def _model(**settings):
    return helpers.model(dtype=torch.float32, segment_length=2, cache_len=5, **settings).eval()


def _alone(model, env, seed, quota, target):
    """One environment, step by step, with ``act`` for one environment: returns, lengths, successes."""
    actor, played = model.actor(1), []
    observed, acted = env.observation_space, env.action_space
    for number in range(quota):
        observation, _ = env.reset(seed=seed if number == 0 else None)
        actor.reset(target)
        total, steps, reward, ended = 0.0, 0, 0.0, False
        while not ended:
            seen = np.asarray(observation)
            if isinstance(observed, spaces.Discrete):
                seen = seen - observed.start
            elif observed.dtype == np.uint8:
                seen = seen.transpose(2, 0, 1)
            action = actor.act(seen[None], np.array([reward]))[0]
            if isinstance(acted, spaces.Discrete):
                action = action + acted.start
            else:
                action = action.clip(acted.low, acted.high)
            observation, reward, terminated, truncated, info = env.step(action)
            total, steps, ended = total + reward, steps + 1, terminated or truncated
        played.append((total, steps, info.get("success")))
    return played


@pytest.mark.parametrize("name", SPACES)
def test_vector_equals_single_environments(name):
    observation_space, action_space, settings = SPACES[name]
    model, envs, quota = _model(**settings), 3, 4
    env = SyncVectorEnv([lambda: Walk(observation_space, action_space)] * envs)
    result = evaluate(model, env, envs * quota, 2.5, seed=11)
    expected = [_alone(model, Walk(observation_space, action_space), 11 + i, quota, 2.5) for i in range(envs)]
    returns, lengths, successes = np.array(expected, dtype=float).reshape(-1, 3).T
    np.testing.assert_array_equal(result.lengths, lengths)
    np.testing.assert_allclose(result.returns, returns, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(result.successes, successes)
    assert result.success_rate == successes.mean()
    assert len(set(lengths)) > 2 and 0 < successes.mean() < 1 and result.seconds > 0


def test_every_environment_plays_the_same_number():
    # The short corridor's environment ends many times while the long one plays its two.
    env = TMazeVector(2, corridor_length=[1, 12], balanced_goals=True)
    model = helpers.model(dtype=torch.float32, observation_shape=(4,)).eval()
    result = evaluate(model, env, 4, 1.0)
    assert len(result.returns) == 4
    assert result.lengths[:2].max() <= 3 and result.lengths[2:].max() <= 14
    assert result.returns.dtype == np.float64 and result.lengths.dtype == np.int64
    assert result.successes.dtype == bool
    np.testing.assert_array_equal(result.successes, result.returns == 1)


def test_the_same_seed_gives_the_same_episodes():
    model = _model()

    def play(**options):
        env = SyncVectorEnv([lambda: Walk(VECTOR, ACTIONS)] * 2)
        return evaluate(model, env, 6, 1.0, **options)

    np.testing.assert_array_equal(play(seed=3).returns, play(seed=3).returns)
    assert play(seed=3).lengths.tolist() != play(seed=4).lengths.tolist()
    drawn = play(seed=3, temperature=5.0).returns
    np.testing.assert_array_equal(drawn, play(seed=3, temperature=5.0).returns)
    assert (drawn != play(seed=3).returns).any()


def test_success_is_none_where_it_is_not_reported():
    env = SyncVectorEnv([lambda: Walk(VECTOR, ACTIONS, report=False)] * 2)
    result = evaluate(_model(), env, 4, 1.0)
    assert result.successes is None and np.isnan(result.success_rate)


def test_the_target_may_start_again_with_each_segment(monkeypatch):
    """What the model reads as return-to-go, in segments of 2 steps."""
    from rate.acting.actor import Actor

    asked: list[tuple[int, float]] = []
    act, steps = Actor.act, iter(range(10**6))

    def record(self, observation, reward=None):
        action = act(self, observation, reward)
        asked.append((next(steps), float(self.return_to_go[0])))
        return action

    monkeypatch.setattr(Actor, "act", record)
    for per_segment in (False, True):
        asked.clear()
        steps = iter(range(10**6))
        env = SyncVectorEnv([lambda: Walk(VECTOR, ACTIONS)])
        result = evaluate(_model(), env, 1, 2.5, seed=1, target_per_segment=per_segment)
        length = int(result.lengths[0])
        assert length >= 4
        again = [step for step, target in asked[:length] if target == 2.5]
        assert again == ([*range(0, length, 2)] if per_segment else [0])


class Coloured(Walk):
    """Says an episode's return under the name of its colour."""

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        self._name, self._sum = f"{('red', 'green')[self._left % 2]}_return", 0.0
        return observation, info

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        self._sum += reward
        return (
            observation,
            reward,
            terminated,
            truncated,
            info | ({self._name: self._sum} if terminated or truncated else {}),
        )


def test_returns_are_told_apart_by_the_part_they_belong_to():
    env = SyncVectorEnv([lambda: Coloured(VECTOR, ACTIONS)] * 3)
    result = evaluate(_model(), env, 12, 1.0)
    red = result.lengths % 2 == 0
    assert result.parts.keys() == {"red", "green"} and 0 < red.sum() < 12
    np.testing.assert_allclose(np.sort(result.parts["red"]), np.sort(result.returns[red]), rtol=1e-6)
    np.testing.assert_allclose(np.sort(result.parts["green"]), np.sort(result.returns[~red]), rtol=1e-6)
    assert evaluate(_model(), SyncVectorEnv([lambda: Walk(VECTOR, ACTIONS)]), 1, 1.0).parts == {}


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_is(training):
    model = _model(dropout=0.3).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    evaluate(model, SyncVectorEnv([lambda: Walk(VECTOR, ACTIONS)] * 2), 2, 1.0, temperature=1.0)
    assert model.training == training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("spaces_", "episodes", "message"),
    [
        ((VECTOR, ACTIONS), 3, "episodes must be a multiple of the 2 environments, got 3"),
        ((VECTOR, ACTIONS), 0, "episodes must be a multiple of the 2 environments, got 0"),
        ((spaces.Box(-1, 1, (4,)), ACTIONS), 2, r"env gives vector observations \(4,\), the model reads vector \(3,\)"),
        ((spaces.Discrete(3), ACTIONS), 2, r"env gives discrete observations \(\), the model reads vector \(3,\)"),
        ((VECTOR, spaces.Discrete(5)), 2, "env takes discrete actions of size 5, the model gives discrete 4"),
        ((VECTOR, spaces.Box(-1, 1, (4,))), 2, "env takes continuous actions of size 4, the model gives discrete 4"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(spaces_, episodes, message):
    env = SyncVectorEnv([lambda: Walk(*spaces_)] * 2)
    with pytest.raises(ValueError, match=message):
        evaluate(_model(), env, episodes, 1.0)


def test_more_discrete_observations_than_the_model_reads_are_refused():
    settings = {"observation": "discrete", "observation_shape": (), "num_observations": 3}
    env = SyncVectorEnv([lambda: Walk(spaces.Discrete(5), ACTIONS)] * 2)
    with pytest.raises(ValueError, match="env gives 5 discrete observations, the model reads 3"):
        evaluate(_model(**settings), env, 2, 1.0)


def test_other_ways_to_reset_are_refused():
    env = SyncVectorEnv([lambda: Walk(VECTOR, ACTIONS)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match=r"env must use AutoresetMode\.NEXT_STEP"):
        evaluate(_model(), env, 2, 1.0)
