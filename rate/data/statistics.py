"""Statistics of a whole source, in one pass and in the memory of one episode."""

from __future__ import annotations

import numpy as np

from rate.data.episodes import EpisodeSource


def observation_statistics(source: EpisodeSource) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of vector observations over all steps, each float32 ``[size]``.

    Computed in float64. A feature that never changes gets the deviation 1.

    Raises:
        ValueError: for observations that are not vectors, or a source without episodes.
    """
    space = source.observation_space
    if space.kind != "vector":
        raise ValueError(f"observations must be vectors to be standardised, got {space.kind}")
    _check_episodes(source)
    count = 0
    mean, squares = np.zeros(space.shape), np.zeros(space.shape)
    low, high = np.full(space.shape, np.inf), np.full(space.shape, -np.inf)
    for index in range(len(source)):
        values = source[index].observations.astype(np.float64)
        number, center = len(values), values.mean(0)
        offset, total = center - mean, count + len(values)
        squares += ((values - center) ** 2).sum(0) + offset**2 * (count * number / total)
        mean += offset * (number / total)
        count = total
        low, high = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
    deviation = np.where(high > low, np.sqrt(squares / count), 1.0).astype(np.float32)
    return mean.astype(np.float32), np.where(deviation > 0, deviation, np.float32(1))


def return_statistics(source: EpisodeSource) -> dict[str, float]:
    """Smallest, largest and mean undiscounted return of an episode, as ``min``, ``max`` and ``mean``.

    Raises:
        ValueError: for a source without episodes.
    """
    _check_episodes(source)
    returns = [float(source[index].rewards.sum(dtype=np.float64)) for index in range(len(source))]
    return {"min": min(returns), "max": max(returns), "mean": float(np.mean(returns))}


def _check_episodes(source: EpisodeSource) -> None:
    if not len(source):
        raise ValueError("source must hold at least one episode, got 0")
