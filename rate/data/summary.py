"""What is in a data set, in numbers: lengths, returns, actions, observations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from rate.data.sources import LazyEpisodes
from rate.data.statistics import Moments

BINS = 16


@dataclass(frozen=True)
class Summary:
    """Of all episodes of a source.

    Args:
        lengths: int64 ``[N]``.
        returns: float64 ``[N]``, undiscounted.
        action_counts: int64 ``[n]``, how often each discrete action is taken; None for continuous ones.
        action_moments: of continuous actions; None for discrete ones.
        action_bins: int64 ``[size, BINS]``, continuous actions between ``action_bounds``; None for discrete ones.
        action_bounds: smallest and largest number counted in ``action_bins``.
        observation_counts: int64 ``[n]``, of discrete observations, else None.
        observation_moments: of vectors, else None.
    """

    lengths: np.ndarray
    returns: np.ndarray
    action_counts: np.ndarray | None
    action_moments: Moments | None
    action_bins: np.ndarray | None
    action_bounds: tuple[float, float]
    observation_counts: np.ndarray | None
    observation_moments: Moments | None


def summarise(
    source: LazyEpisodes,
    *,
    images: bool = False,
    over: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Summary:
    """Reads all episodes once; they are checked on the way.

    Args:
        source: with at least one episode.
        images: read image observations as well, to check them. Without, only actions and rewards are.
        over: wraps the numbers of the episodes, for a progress bar.

    Raises:
        ValueError: for a bad episode, naming it.
    """
    seen, acted = source.observation_space, source.action_space
    whole = images or seen.kind != "image"
    low = -1.0 if acted.low is None else acted.low
    high = 1.0 if acted.high is None else acted.high
    discrete = acted.kind == "discrete"
    size = 0 if discrete else acted.shape[0]
    action_counts = np.zeros(acted.n or 0, np.int64)
    action_bins = np.zeros((size, BINS), np.int64)
    action_moments, returns = Moments(size), []
    observation_counts = np.zeros(seen.n or 0, np.int64)
    observation_moments = Moments(seen.shape[0] if seen.kind == "vector" else 0)
    for index in over(range(len(source))):
        if whole:
            episode = source[index]
            actions, rewards = episode.actions, episode.rewards
            if seen.kind == "vector":
                observation_moments.add(episode.observations)
            elif seen.kind == "discrete":
                observation_counts += np.bincount(episode.observations - seen.start, minlength=seen.n or 0)
        else:
            actions, rewards = source.actions_and_rewards(index)
        returns.append(float(rewards.sum(dtype=np.float64)))
        if discrete:
            action_counts += np.bincount(actions - acted.start, minlength=acted.n or 0)
        else:
            action_moments.add(actions)
            for row, values in zip(action_bins, actions.T, strict=True):
                row += np.histogram(values.clip(low, high), BINS, (low, high))[0]
    return Summary(
        source.lengths,
        np.array(returns),
        action_counts if discrete else None,
        None if discrete else action_moments,
        None if discrete else action_bins,
        (low, high),
        observation_counts if seen.kind == "discrete" else None,
        observation_moments if seen.kind == "vector" else None,
    )
