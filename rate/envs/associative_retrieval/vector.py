"""Many associative retrievals at once: the rules of :class:`AssociativeRetrieval`, each step a few numpy operations."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from rate.envs.arguments import finite_number, switch, whole_number
from rate.envs.associative_retrieval.env import WAIT
from rate.envs.vectors import SeededVector


class AssociativeRetrievalVector(SeededVector):
    """``num_envs`` environments, stepped together without a Python loop.

    Observations float32 ``[num_envs, 3]``, actions int ``[num_envs]``, rewards float64 ``[num_envs]``; see
    :class:`AssociativeRetrieval` for their meaning, the arguments and the errors. ``info`` has Gymnasium's vector
    form: ``way`` and, on a step in which an episode ends, ``success``, each with a mask beside it.
    """

    def __init__(
        self,
        num_envs: int = 1,
        length: int = 90,
        noise: bool = True,
        success_reward: float = 1.0,
        failure_reward: float = -1.0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        observed, acted = gymnasium.spaces.Box(-1, 1, (3,), np.float32), gymnasium.spaces.Discrete(3)
        super().__init__(num_envs, observed, acted, autoreset_mode)
        self.length = whole_number("length", length, at_least=2)
        self.noise = switch("noise", noise)
        self.success_reward = finite_number("success_reward", success_reward)
        self.failure_reward = finite_number("failure_reward", failure_reward)
        self._t, self._way = np.zeros(self.num_envs, np.int64), np.full(self.num_envs, -1)
        self._noise = np.zeros(self.num_envs, np.float32)

    def _begin(self, which: np.ndarray, options: dict[str, Any]) -> None:
        self._t[which], self._way[which] = 0, -1

    def _advance(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        self._t = self._t + 1
        terminated = self._t >= self.length
        success = (self._way >= 0) & (actions == self._way)
        leaves = (self._way < 0) & (actions != WAIT) & ~terminated
        self._way = np.where(leaves, actions, self._way)
        rewards = np.where(terminated, np.where(success, self.success_reward, self.failure_reward), 0.0)
        return rewards, terminated, np.zeros_like(terminated), {"success": success}

    def _check_actions(self, actions: np.ndarray) -> None:
        wrong = (actions < 0) | (actions > WAIT)
        if wrong.any():
            env = int(wrong.argmax())
            raise ValueError(
                f"actions must be 0 or 1 (go) or 2 (wait), got {actions[env]} for environment {env}"
            )

    def _observations(self, moved: np.ndarray) -> np.ndarray:
        if self.noise:
            self._noise[moved] = self.streams.below(3, moved) - 1
        return np.stack([self._way >= 0, self._t == self.length - 1, self._noise], axis=1).astype(np.float32)

    def _info(self, which: np.ndarray) -> dict[str, Any]:
        return {"way": self._way.copy(), "_way": which.copy()}
