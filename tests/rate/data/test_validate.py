"""The check of an episode names the episode, what is wrong and where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rate.data import Episode, InMemoryEpisodes, SpaceSpec, check_episode
from tests.rate.data.helpers import DISCRETE, VECTOR, counting_episode

CONTINUOUS = SpaceSpec("continuous", (2,))
IMAGE = SpaceSpec("image", (3, 4, 4))
GOOD = counting_episode(5)


def _with(values: np.ndarray, step: int, value: float) -> np.ndarray:
    changed = values.copy()
    changed[step] = value
    return changed


CASES = [
    (replace(GOOD, observations=_with(GOOD.observations, 2, np.nan)), "observations contain NaN at step 2"),
    (
        replace(GOOD, observations=_with(GOOD.observations, 4, -np.inf)),
        "observations contain infinity at step 4",
    ),
    (replace(GOOD, rewards=_with(GOOD.rewards, 0, np.nan)), "rewards contain NaN at step 0"),
    (replace(GOOD, rewards=_with(GOOD.rewards, 3, np.inf)), "rewards contain infinity at step 3"),
    (replace(GOOD, actions=_with(GOOD.actions, 1, 4)), "actions contain 4 at step 1, expected 0 to 3"),
    (replace(GOOD, actions=_with(GOOD.actions, 3, -1)), "actions contain -1 at step 3, expected 0 to 3"),
    (replace(GOOD, actions=GOOD.actions.astype(np.float32)), "actions must be integers, got float32"),
    (replace(GOOD, actions=GOOD.actions[:, None]), r"actions must be \[T\], got \[5, 1\]"),
    (replace(GOOD, observations=GOOD.observations[:, :1]), r"observations must be \[T, 2\], got \[5, 1\]"),
    (replace(GOOD, observations=GOOD.observations[:4]), "observations hold 4 steps, expected 5"),
    (replace(GOOD, actions=GOOD.actions[:3]), "actions hold 3 steps, expected 5"),
    (replace(GOOD, rewards=GOOD.rewards[:, None]), r"rewards must be \[T\], got \[5, 1\]"),
    (replace(GOOD, observations=GOOD.observations.astype(str)), "observations must be real numbers, got <U"),
    (counting_episode(0), "has no steps, expected at least one"),
]


@pytest.mark.parametrize(("episode", "message"), CASES)
def test_a_bad_episode_is_named(episode, message):
    with pytest.raises(ValueError, match=f"^episode 3: {message}") as raised:
        check_episode(episode, 3, VECTOR, DISCRETE)
    assert "\n" not in str(raised.value)


def test_continuous_actions_must_be_finite():
    actions = _with(np.zeros((5, 2), np.float32), 1, np.nan)
    with pytest.raises(ValueError, match=r"^episode 0: actions contain NaN at step 1"):
        check_episode(replace(GOOD, actions=actions), 0, VECTOR, CONTINUOUS)


def test_discrete_observations_must_be_in_range():
    space = SpaceSpec("discrete", (), n=3, start=2)
    episode = Episode(np.array([2, 4, 5]), np.zeros(3, np.int64), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"^episode 0: observations contain 5 at step 2, expected 2 to 4"):
        check_episode(episode, 0, space, DISCRETE)


def test_images_must_be_uint8():
    episode = replace(GOOD, observations=np.zeros((5, 3, 4, 4), np.float32))
    with pytest.raises(ValueError, match=r"^episode 0: observations must be uint8, got float32"):
        check_episode(episode, 0, IMAGE, DISCRETE)


def test_good_episodes_pass():
    check_episode(GOOD, 0, VECTOR, DISCRETE)
    check_episode(replace(GOOD, observations=np.zeros((5, 3, 4, 4), np.uint8)), 0, IMAGE, DISCRETE)
    check_episode(replace(GOOD, actions=np.zeros((5, 2), np.float32)), 0, VECTOR, CONTINUOUS)


def test_a_source_in_memory_checks_its_episodes():
    with pytest.raises(ValueError, match=r"^episode 1: actions contain 4 at step 1"):
        InMemoryEpisodes([GOOD, replace(GOOD, actions=_with(GOOD.actions, 1, 4))], VECTOR, DISCRETE)
