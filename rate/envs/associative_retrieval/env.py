"""Action-Associative-Retrieval: leave with one of two actions, return with the same one much later."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from rate.envs.arguments import finite_number, switch, whole_number

WAIT = 2
"""The action that does nothing; 0 and 1 are the two ways."""


class AssociativeRetrieval(gymnasium.Env[np.ndarray, np.int64]):
    """Two states, S0 and S1, and two ways between them, the actions 0 and 1.

    The agent starts in S0 and leaves it by a way of its own choice. It waits in S1, until at the episode's last step
    a flag asks it to return: by the way it came. Which way that was is in no observation, only in its own first
    action, so a policy must remember what it did.

    Observation, float32 ``[3]``:
        0. ``state``: 0 in S0, 1 in S1.
        1. ``flag``: 1 at the last step, else 0.
        2. ``noise``: drawn from {-1, 0, 1} at every observation; always 0 with ``noise=False``.

    Action, ``Discrete(3)``: 0 or 1 to go, 2 to wait. In S1, before the flag, every action waits.

    Reward: ``success_reward`` for the right way back, ``failure_reward`` for any other end, 0 before.

    An episode terminates after ``length`` steps. ``info`` holds ``way`` (int, -1 before the agent has left), and
    ``success`` (bool) on the last step.

    A policy that always takes the likeliest action leaves by one way and never by the other, and its success then
    says nothing about memory: let it sample, and it leaves as often by either.

    Args:
        length: steps of an episode, at least 2.
        noise: whether the third feature is random.
        success_reward: reward of the right way back.
        failure_reward: reward of any other end.

    Raises:
        ValueError: for an argument out of range or an unknown action.
        TypeError: for an argument of the wrong type.
        gymnasium.error.ResetNeeded: when an episode that has ended, or not begun, is stepped.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium does

    def __init__(
        self,
        length: int = 90,
        noise: bool = True,
        success_reward: float = 1.0,
        failure_reward: float = -1.0,
    ) -> None:
        self.length = whole_number("length", length, at_least=2)
        self.noise = switch("noise", noise)
        self.success_reward = finite_number("success_reward", success_reward)
        self.failure_reward = finite_number("failure_reward", failure_reward)
        self.observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self._t, self._way, self._running = 0, -1, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in S0."""
        super().reset(seed=seed)
        self._t, self._way, self._running = 0, -1, True
        return self._observation(), {"way": self._way}

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Go or wait; returns (observation, reward, terminated, truncated, info)."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("the episode is over or not begun: call reset() before step()")
        if action not in (0, 1, WAIT):
            raise ValueError(f"action must be 0 or 1 (go) or 2 (wait), got {action!r}")
        self._t += 1
        info: dict[str, Any] = {}
        reward, terminated = 0.0, self._t == self.length
        if terminated:
            self._running = False
            info["success"] = bool(self._way >= 0 and action == self._way)
            reward = self.success_reward if info["success"] else self.failure_reward
        elif self._way < 0 and action != WAIT:
            self._way = int(action)
        return self._observation(), reward, terminated, False, info | {"way": self._way}

    def _observation(self) -> np.ndarray:
        noise = self.np_random.integers(-1, 2) if self.noise else 0
        return np.array([self._way >= 0, self._t == self.length - 1, noise], np.float32)
