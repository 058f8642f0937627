"""Action-Associative-Retrieval: its rules, the same rules many at once, and the expert."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rate.envs import make, make_vec
from rate.envs.associative_retrieval import AssociativeRetrieval, AssociativeRetrievalVector
from tests.rate.envs.helpers import check_task, expert_plays, mean_return

NAME = "associative-retrieval"


def play(actions, **options):
    env = AssociativeRetrieval(length=len(actions), noise=False, **options)
    observation, info = env.reset(seed=0)
    assert observation.tolist() == [0, 0, 0] and info == {"way": -1}
    return [env.step(action) for action in actions]


def test_it_is_an_environment():
    check_task(NAME, length=6)


def test_an_episode_step_by_step():
    steps = play([1, 2, 0, 1])
    assert [step[0].tolist() for step in steps] == [[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert [step[1] for step in steps] == [0, 0, 0, 1]
    assert [step[2] for step in steps] == [False, False, False, True] and not any(step[3] for step in steps)
    assert [step[4]["way"] for step in steps] == [1, 1, 1, 1]
    assert "success" not in steps[2][4] and steps[3][4]["success"] is True


@pytest.mark.parametrize("actions", [[0, 2, 1], [0, 2, 2], [2, 2, 2], [2, 2, 1]])
def test_any_other_return_fails(actions):
    reward, info = play(actions)[-1][1], play(actions)[-1][4]
    assert reward == -1 and info["success"] is False


def test_it_may_leave_later():
    steps = play([2, 2, 0, 2, 0])
    assert [step[0][0] for step in steps] == [0, 0, 1, 1, 1] and steps[-1][4]["success"]


def test_rewards_can_be_chosen():
    assert play([0, 0], success_reward=3.0)[-1][1] == 3
    assert play([0, 1], failure_reward=0.0)[-1][1] == 0


@pytest.mark.parametrize("noise", [True, False])
def test_many_at_once_follow_the_same_rules(noise):
    rng = np.random.default_rng(0)
    vector = AssociativeRetrievalVector(6, length=5, noise=noise)
    singles = [AssociativeRetrieval(length=5, noise=False) for _ in range(6)]
    observations, info = vector.reset(seed=3)
    for env in singles:
        env.reset()
    ended = np.zeros(6, bool)
    for _ in range(40):
        assert np.isin(observations[:, 2], [-1, 0, 1] if noise else [0]).all()
        actions = rng.integers(0, 3, 6)
        observations, rewards, terminated, truncated, info = vector.step(actions)
        for i, env in enumerate(singles):
            if ended[i]:
                seen, said = env.reset()
                expected = (0.0, False)
            else:
                seen, *expected, _, said = env.step(actions[i])
            assert observations[i, :2].tolist() == seen[:2].tolist() and info["way"][i] == said["way"]
            assert (rewards[i], terminated[i]) == tuple(expected) and not truncated[i]
            assert ("success" in said) == ("success" in info and bool(info["_success"][i]))
            assert not said.get("success", False) or info["success"][i]
        ended = terminated
    if noise:
        assert len(set(observations[:, 2].tolist())) > 1


def test_what_one_does_depends_on_its_own_seed():
    def noise(count, seeds):
        vector = AssociativeRetrievalVector(count, length=9, autoreset_mode=AutoresetMode.DISABLED)
        seen = [vector.reset(seed=seeds)[0]]
        seen += [vector.step(np.full(count, 2))[0] for _ in range(7)]
        return np.stack(seen, 1)[:, :, 2]

    three, two = noise(3, [5, 6, 7]), noise(2, [7, 5])
    np.testing.assert_array_equal(three[[2, 0]], two)
    assert (three[0] != three[1]).any()


def test_the_expert_leaves_by_both_ways_and_returns():
    played = expert_plays(NAME, 60, length=4)
    assert mean_return(played) == 1 and all(one.success for one in played)
    ways = [int(one.recording.actions[0]) for one in played]
    assert 15 < sum(ways) < 45


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"length": 1}, ValueError, "length must be at least 2, got 1"),
        ({"length": 2.5}, TypeError, "length must be an integer, got 2.5"),
        ({"noise": 1}, TypeError, "noise must be True or False, got 1"),
        ({"failure_reward": float("nan")}, ValueError, "failure_reward must be finite, got nan"),
    ],
)
def test_bad_options_are_named(options, error, message):
    for build in (lambda: make(NAME, **options), lambda: make_vec(NAME, 2, **options)):
        with pytest.raises(error, match=message):
            build()


def test_bad_actions_and_ended_episodes_are_named():
    env = AssociativeRetrieval(length=2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action must be 0 or 1 \(go\) or 2 \(wait\), got 3"):
        env.step(3)
    env.step(0), env.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    vector = AssociativeRetrievalVector(2)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match=r"got 3 for environment 1"):
        vector.step(np.array([0, 3]))
