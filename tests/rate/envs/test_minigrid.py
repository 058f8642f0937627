"""Minigrid-Memory: the paper's pixels, its rewards and its limit; an expert that goes by what it saw."""

from __future__ import annotations

import numpy as np
import pytest

from rate.envs import make, task
from tests.rate.envs.helpers import check_task, expert_plays

pytest.importorskip("minigrid", reason="needs rate-kernels[minigrid]")

LEFT, RIGHT, FORWARD = range(3)
NAME = "minigrid-memory"


def test_it_is_an_environment():
    check_task(NAME, size=7, time_limit=60)


def test_the_spaces_are_those_of_the_paper():
    env = make(NAME)
    assert env.observation_space.shape == (3, 84, 84) and env.observation_space.dtype == np.uint8
    assert env.action_space.n == 3 and env.size == 41 and task(NAME).target_returns == (0.96,)


@pytest.mark.parametrize(("size", "view", "tile"), [(7, 3, 28), (13, 5, 12)])
def test_pixels_and_rewards_are_minigrids_own(size, view, tile):
    from minigrid.envs import MemoryEnv
    from minigrid.wrappers import ImgObsWrapper, RGBImgPartialObsWrapper

    ours = make(NAME, size=size, agent_view_size=view, tile_size=tile)
    theirs = MemoryEnv(size=size, random_length=True, max_steps=845, agent_view_size=view)
    theirs = ImgObsWrapper(RGBImgPartialObsWrapper(theirs, tile_size=tile))
    rng = np.random.default_rng(0)
    rewarded = 0
    for seed in range(12):
        seen, expected = ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        for _ in range(150):
            np.testing.assert_array_equal(np.moveaxis(seen, 0, -1), expected)
            action = int(rng.choice([LEFT, RIGHT, FORWARD, FORWARD]))
            (seen, *one), (expected, *other) = ours.step(action), theirs.step(action)
            assert one[:3] == other[:3]
            if one[1]:
                break
        rewarded += one[0] > 0
    assert rewarded > 0


def test_time_ends_an_episode_as_a_failure():
    env = make(NAME, size=7, time_limit=3)
    env.reset(seed=0)
    steps = [env.step(LEFT) for _ in range(3)]
    assert [step[3] for step in steps] == [False, False, True] and not any(step[2] for step in steps)
    assert [step[4] for step in steps] == [{}, {}, {"success": False}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "size must be odd, got 8"),
        ({"size": 5}, "size must be at least 7, got 5"),
        ({"agent_view_size": 4}, "agent_view_size must be odd, got 4"),
        ({"time_limit": 900}, "time_limit must be at most max_steps = 845, got 900"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(NAME, **options)


def test_bad_actions_are_named():
    env = make(NAME, size=7)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action must be 0 \(left\), 1 \(right\) or 2 \(forward\), got 3"):
        env.step(3)


@pytest.mark.parametrize(
    ("episodes", "options"),
    [
        (60, {"size": 7}),
        (30, {"size": 7, "agent_view_size": 7}),
        (30, {"size": 13, "random_length": False}),
        (60, {"size": 41}),
        (6, {"size": 91}),
    ],
)
def test_the_expert_always_succeeds(episodes, options):
    played = expert_plays(NAME, episodes, **options)
    assert all(one.success for one in played) and len(played) == episodes
    if options == {"size": 41}:
        assert 30 < np.mean([len(one.recording.rewards) for one in played]) < 42  # 35.4 knowing the map


def test_the_expert_knows_images_only():
    """Episodes whose images are the same until the last look have the same actions until then."""
    played = expert_plays(NAME, 80, size=7)
    by_start: dict[bytes, set[tuple[int, ...]]] = {}
    for one in played:
        seen, acted = one.recording.observations, one.recording.actions
        for step in range(len(acted)):
            by_start.setdefault(seen[: step + 1].tobytes(), set()).add(int(acted[step]))
    assert all(len(actions) == 1 for actions in by_start.values()) and len(by_start) > 20
