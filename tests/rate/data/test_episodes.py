"""Spaces and episodes."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from rate.data import Episode, Recording, SpaceSpec


@pytest.mark.parametrize(
    ("space", "role", "expected"),
    [
        (
            spaces.Box(-2, 3, (5,), np.float32),
            "observation",
            SpaceSpec("vector", (5,), low=-2.0, high=3.0),
        ),
        (spaces.Box(-np.inf, np.inf, (5,), np.float64), "observation", SpaceSpec("vector", (5,))),
        (
            spaces.Box(np.array([-1, -3], np.float32), np.array([1, 2], np.float32)),
            "action",
            SpaceSpec("continuous", (2,), low=-3.0, high=2.0),
        ),
        (spaces.Discrete(7, start=3), "action", SpaceSpec("discrete", (), n=7, start=3)),
        (spaces.Discrete(7), "observation", SpaceSpec("discrete", (), n=7)),
        (
            spaces.Box(0, 255, (84, 60, 3), np.uint8),
            "observation",
            SpaceSpec("image", (3, 84, 60), channels_last=True, low=0.0, high=255.0),
        ),
        (
            spaces.Box(0, 255, (4, 84, 60), np.uint8),
            "observation",
            SpaceSpec("image", (4, 84, 60), low=0.0, high=255.0),
        ),
    ],
)
def test_spaces_are_understood(space, role, expected):
    assert SpaceSpec.from_space(space, role) == expected


@pytest.mark.parametrize(
    ("space", "role"),
    [
        (spaces.Box(0, 255, (84, 84), np.uint8), "observation"),
        (spaces.Box(0, 1, (3, 8, 8), np.float32), "observation"),
        (spaces.Box(0, 255, (3, 8, 8), np.uint8), "action"),
        (spaces.MultiDiscrete([2, 3]), "action"),
        (spaces.Dict(a=spaces.Discrete(2)), "observation"),
    ],
)
def test_other_spaces_are_named(space, role):
    with pytest.raises(TypeError, match=f"{role} space .* is not supported, expected 1-D Box"):
        SpaceSpec.from_space(space, role)


def test_images_are_turned_channels_first():
    spec = SpaceSpec.from_space(spaces.Box(0, 255, (6, 5, 3), np.uint8), "observation")
    stored = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
    turned = spec.convert(stored)
    assert turned.shape == (4, 3, 6, 5)
    assert turned[1, 2, 3, 4] == stored[1, 3, 4, 2]


def test_returns_to_go_are_sums_to_the_end():
    rewards = np.array([1, -2, 4], np.float32)
    episode = Episode(np.zeros((3, 1), np.float32), np.zeros(3, np.int64), rewards)
    assert episode.returns_to_go.dtype == np.float32
    np.testing.assert_array_equal(episode.returns_to_go, [3, 2, 4])


def test_returns_to_go_do_not_accumulate_rounding():
    length = 200_000
    rewards = np.full(length, 0.1, np.float32)
    episode = Episode(np.zeros((length, 1), np.float32), np.zeros(length, np.int64), rewards)
    exact = np.float32(np.float64(rewards[0]) * length)
    assert abs(episode.returns_to_go[0] - exact) <= np.spacing(exact)


def test_a_recording_loses_its_last_observation():
    observations = np.arange(8, dtype=np.float64).reshape(4, 2)
    recording = Recording(observations, np.array([1, 2, 3], np.int32), np.ones(3))
    episode = recording.episode(SpaceSpec("vector", (2,)), SpaceSpec("discrete", (), n=4))
    assert episode.length == 3
    np.testing.assert_array_equal(episode.observations, observations[:3].astype(np.float32))
    assert (episode.observations.dtype, episode.actions.dtype) == (np.float32, np.int64)
    assert episode.rewards.dtype == np.float32
