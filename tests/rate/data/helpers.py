"""Small sources with known content."""

from __future__ import annotations

import numpy as np

from rate.data import Episode, InMemoryEpisodes, Recording, SpaceSpec

VECTOR = SpaceSpec("vector", (2,))
DISCRETE = SpaceSpec("discrete", (), n=4)


def counting_episode(length: int, number: int = 0) -> Episode:
    """Observations are [number + 1, step]; actions count modulo 4; rewards are 1, 2, 3 and so on."""
    steps = np.arange(length)
    observations = np.stack([np.full(length, number + 1), steps], 1).astype(np.float32)
    return Episode(observations, steps % 4, (steps + 1).astype(np.float32))


def counting_source(lengths: list[int]) -> InMemoryEpisodes:
    episodes = [counting_episode(length, number) for number, length in enumerate(lengths)]
    return InMemoryEpisodes(episodes, VECTOR, DISCRETE)


def random_recordings(observation_space, action_space, lengths: list[int], seed: int = 0) -> list[Recording]:
    """Recordings with random values of Gymnasium spaces."""
    observation_space.seed(seed)
    action_space.seed(seed)
    rng = np.random.default_rng(seed)
    return [
        Recording(
            np.stack([observation_space.sample() for _ in range(length + 1)]),
            np.stack([action_space.sample() for _ in range(length)]),
            rng.normal(size=length),
            terminated=length % 2 == 0,
            truncated=length % 2 == 1,
        )
        for length in lengths
    ]
