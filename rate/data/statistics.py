"""Statistics of a whole source, in one pass and in the memory of one episode."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from rate.data.episodes import EpisodeSource


class Moments:
    """Mean, deviation and extremes of rows ``[T, size]`` that are added in parts, in float64."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean, self._squares = np.zeros(size), np.zeros(size)
        self.low, self.high = np.full(size, np.inf), np.full(size, -np.inf)

    def add(self, values: np.ndarray) -> None:
        """Takes further rows, at least one."""
        values = values.astype(np.float64)
        number, center = len(values), values.mean(0)
        offset, total = center - self.mean, self.count + len(values)
        self._squares += ((values - center) ** 2).sum(0) + offset**2 * (self.count * number / total)
        self.mean = self.mean + offset * (number / total)
        self.count = total
        self.low, self.high = np.minimum(self.low, values.min(0)), np.maximum(self.high, values.max(0))

    @property
    def deviation(self) -> np.ndarray:
        """Float64 ``[size]``, exactly 0 for what never changes."""
        return np.where(self.high > self.low, np.sqrt(self._squares / max(self.count, 1)), 0.0)


_OBSERVATIONS: WeakKeyDictionary[EpisodeSource, tuple[np.ndarray, np.ndarray]] = WeakKeyDictionary()


def observation_statistics(source: EpisodeSource) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of vector observations over all steps, each float32 ``[size]``.

    Computed in float64 when first asked for and kept as long as the source. A feature that never changes gets the
    deviation 1.

    Raises:
        ValueError: for observations that are not vectors, or a source without episodes.
    """
    space = source.observation_space
    if space.kind != "vector":
        raise ValueError(f"observations must be vectors to be standardised, got {space.kind}")
    _check_episodes(source)
    if source not in _OBSERVATIONS:
        moments = Moments(space.shape[0])
        for index in range(len(source)):
            moments.add(source[index].observations)
        deviation = moments.deviation.astype(np.float32)
        _OBSERVATIONS[source] = (
            moments.mean.astype(np.float32),
            np.where(deviation > 0, deviation, np.float32(1)),
        )
    mean, deviation = _OBSERVATIONS[source]
    return mean.copy(), deviation.copy()


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
