"""The scripted expert of associative retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rate.envs.associative_retrieval.env import WAIT

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


class AssociativeRetrievalExpert:
    """Leaves by a way drawn from the episode's seed, waits, and returns by the same way.

    Args:
        num_envs: environments in the batch.
    """

    def __init__(self, num_envs: int) -> None:
        self._way = np.zeros(num_envs, np.int64)

    def start(self, env_ids: np.ndarray, seeds: np.ndarray) -> None:
        """See :class:`rate.envs.Policy`."""
        self._way[env_ids] = [np.random.default_rng(int(seed)).integers(2) for seed in seeds]

    def act(self, observations: np.ndarray, rewards: Any = None) -> np.ndarray:
        """Actions int64 ``[B]`` for observations float32 ``[B, 3]``."""
        goes = (observations[:, 0] == 0) | (observations[:, 1] != 0)
        return np.where(goes, self._way, WAIT)


def expert(env: VectorEnv) -> AssociativeRetrievalExpert:
    """The expert for a vector environment."""
    return AssociativeRetrievalExpert(env.num_envs)
