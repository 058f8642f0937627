"""The scripted expert of T-Maze."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rate.envs.arguments import whole_number
from rate.envs.tmaze.maze import DOWN, RIGHT, UP

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


class TMazeExpert:
    """Solves every T-Maze: remembers the hint, walks right until the flag, then turns the way the hint said.

    It looks at observations only, never at the environment, so a policy with memory can imitate it. One
    expert acts for a batch of environments; a new hint replaces the one before, so automatic resets need no
    call to ``reset``.
    """

    def __init__(self, num_envs: int = 1) -> None:
        self._hint = np.zeros(whole_number("num_envs", num_envs, at_least=1), np.float32)

    def reset(self, num_envs: int | None = None, env_ids: Sequence[int] | np.ndarray | None = None) -> None:
        """Forget the hints of the environments ``env_ids`` (numbers or a bool mask), or of all.

        ``num_envs`` is the size of the whole batch, as before if None; it can change in a reset of all only.

        Raises:
            ValueError: if ``num_envs`` is below 1, or changes although ``env_ids`` is given.
        """
        if env_ids is None:
            size = len(self._hint) if num_envs is None else whole_number("num_envs", num_envs, at_least=1)
            self._hint = np.zeros(size, np.float32)
            return
        if num_envs is not None and num_envs != len(self._hint):
            raise ValueError(f"num_envs must be {len(self._hint)} when only some are reset, got {num_envs}")
        self._hint[np.asarray(env_ids)] = 0

    def start(self, env_ids: np.ndarray, seeds: np.ndarray) -> None:
        """See :class:`rate.envs.Policy`; the expert draws nothing."""
        self.reset(env_ids=env_ids)

    def act(self, observation: np.ndarray, reward: Any = None) -> np.ndarray:
        """Actions int64 ``[B]`` for observations float32 ``[B, 4]``; rewards tell it nothing.

        At a junction without any hint seen, it turns down.

        Raises:
            ValueError: if ``observation`` is not ``[num_envs, 4]`` of the whole batch.
        """
        observation = np.asarray(observation)
        if observation.shape != (len(self._hint), 4):
            raise ValueError(f"observation must have shape ({len(self._hint)}, 4), got {observation.shape}")
        hint, flag = observation[:, 1], observation[:, 2]
        self._hint = np.where(hint != 0, hint, self._hint).astype(np.float32)
        turn = np.where(self._hint > 0, UP, DOWN)
        return np.where(flag != 0, turn, RIGHT).astype(np.int64)


def expert(env: VectorEnv) -> TMazeExpert:
    """The expert for a vector environment."""
    return TMazeExpert(env.num_envs)
