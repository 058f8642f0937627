"""Statistics agree with numpy over all steps at once."""

from __future__ import annotations

import numpy as np
import pytest

from rate.data import Episode, InMemoryEpisodes, SpaceSpec, observation_statistics, return_statistics
from tests.rate.data.helpers import DISCRETE, counting_source


def test_observations_match_numpy_even_far_from_zero():
    rng = np.random.default_rng(0)
    scale, offset = np.array([1, 1e-2, 30], np.float32), np.array([1e4, 0, -5], np.float32)
    arrays = [(rng.normal(size=(t, 3)) * scale + offset).astype(np.float32) for t in (1, 7, 400, 33)]
    episodes = [Episode(a, np.zeros(len(a), np.int64), np.zeros(len(a), np.float32)) for a in arrays]
    mean, deviation = observation_statistics(InMemoryEpisodes(episodes, SpaceSpec("vector", (3,)), DISCRETE))
    together = np.concatenate(arrays).astype(np.float64)
    np.testing.assert_allclose(mean, together.mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation, together.std(0), rtol=1e-6)
    assert mean.dtype == deviation.dtype == np.float32


def test_constant_features_get_deviation_one():
    rows = np.column_stack([np.full(9, 0.1), np.arange(9)]).astype(np.float32)
    episodes = [
        Episode(part, np.zeros(len(part), np.int64), np.zeros(len(part), np.float32))
        for part in (rows[:2], rows[2:])
    ]
    mean, deviation = observation_statistics(InMemoryEpisodes(episodes, SpaceSpec("vector", (2,)), DISCRETE))
    assert deviation[0] == 1
    np.testing.assert_allclose(deviation[1], rows[:, 1].std(), rtol=1e-6)
    np.testing.assert_allclose(mean[0], 0.1, rtol=1e-6)


def test_returns():
    assert return_statistics(counting_source([1, 2, 4])) == {"min": 1.0, "max": 10.0, "mean": 14 / 3}


def test_nothing_to_standardise_is_named():
    source = InMemoryEpisodes(
        [Episode(np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.float32))], DISCRETE, DISCRETE
    )
    with pytest.raises(ValueError, match="observations must be vectors to be standardised, got discrete"):
        observation_statistics(source)
    for statistics in (observation_statistics, return_statistics):
        with pytest.raises(ValueError, match="source must hold at least one episode, got 0"):
            statistics(counting_source([]))
