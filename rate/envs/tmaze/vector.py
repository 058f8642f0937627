"""Many T-Mazes at once: the rules of :class:`rate.envs.TMaze`, each step a few numpy operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from rate.envs.arguments import finite_number, switch, whole_number, whole_numbers
from rate.envs.tmaze.maze import ACTION_NAMES, MOVE_X, MOVE_Y
from rate.envs.vectors import SeededVector


class TMazeVector(SeededVector):
    """``num_envs`` T-Mazes, stepped together without a Python loop.

    Observations float32 ``[num_envs, 4]``, actions int ``[num_envs]``, rewards float64 ``[num_envs]``; see
    :class:`rate.envs.TMaze` for their meaning. ``info`` has Gymnasium's vector form: ``x``, ``goal`` and, on
    a step in which an episode ends, ``success``, each ``[num_envs]`` with a mask ``_x``, ``_goal``,
    ``_success`` beside it.

    Every environment draws from a stream of its own, so what one does depends on its seed and its actions
    alone: neither on how many others there are nor on when they end. (The streams differ from those of
    ``TMaze``.)

    ``reset`` takes ``seed`` as an int (environment ``i`` gets ``seed + i``) or as one int per environment,
    and ``options``: ``"reset_mask"``, bool ``[num_envs]``, resets only some environments; ``"goal"``, +1, -1
    or one of them per environment, chooses the goals instead of drawing them.

    Args:
        num_envs: number of environments, at least 1.
        corridor_length: one length for all, or one per environment.
        noise, penalty, hint_steps, goal_reward: as for ``TMaze``.
        balanced_goals: goals are not drawn: the first episode of environment ``i`` after seeding has +1 if
            ``i`` is even and -1 if it is odd, and each environment alternates from episode to episode. An
            even number of environments then has as many episodes up as down.
        autoreset_mode: ``NEXT_STEP`` (an ended environment ignores its next action and starts anew with it)
            or ``DISABLED`` (it must be reset with ``"reset_mask"`` before the next step).

    Raises:
        ValueError: for an argument out of range, naming it.
        TypeError: for an argument of the wrong type.
        gymnasium.error.ResetNeeded: when stepped before the first reset, or, with ``DISABLED``, after an end.
    """

    def __init__(
        self,
        num_envs: int = 1,
        corridor_length: int | Sequence[int] | np.ndarray = 9,
        noise: bool = True,
        penalty: float = 0.0,
        hint_steps: int = 1,
        goal_reward: float = 1.0,
        balanced_goals: bool = False,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        observed, acted = gymnasium.spaces.Box(-1, 1, (4,), np.float32), gymnasium.spaces.Discrete(4)
        super().__init__(num_envs, observed, acted, autoreset_mode)
        self.corridor_length = whole_numbers("corridor_length", corridor_length, self.num_envs, at_least=1)
        self.noise = switch("noise", noise)
        self.penalty = finite_number("penalty", penalty)
        self.hint_steps = whole_number("hint_steps", hint_steps, at_least=1)
        self.goal_reward = finite_number("goal_reward", goal_reward)
        self.balanced_goals = switch("balanced_goals", balanced_goals)
        self._x, self._y, self._t, self._goal, self._episode = np.zeros((5, self.num_envs), np.int64)
        self._noise = np.zeros(self.num_envs, np.float32)

    def _advance(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        # A running agent is in the corridor (y = 0), so a move up or down counts at the junction only.
        at_junction = self._x == self.corridor_length
        self._y = MOVE_Y[actions] * at_junction
        self._x = np.minimum(np.maximum(self._x + MOVE_X[actions], 0), self.corridor_length)
        self._t = self._t + 1

        terminated = self._y != 0
        truncated = (self._t >= self.corridor_length + 2) & ~terminated
        success = self._y == self._goal
        rewards = np.where(
            terminated | truncated,
            np.where(success, self.goal_reward, 0.0),
            np.where(self._x < self._t, self.penalty, 0.0),
        )
        return rewards, terminated, truncated, {"success": success}

    def _check_actions(self, actions: np.ndarray) -> None:
        wrong = (actions < 0) | (actions > 3)
        if wrong.any():
            env = int(wrong.argmax())
            raise ValueError(f"actions must be {ACTION_NAMES}, got {actions[env]} for environment {env}")

    def _begin(self, which: np.ndarray, options: dict[str, Any]) -> None:
        goal = options.get("goal")
        self._x[which] = self._y[which] = self._t[which] = 0
        if goal is not None:
            goals = np.asarray(goal)
            if goals.shape not in ((), (self.num_envs,)) or not np.isin(goals, (-1, 1)).all():
                raise ValueError(f"options['goal'] must be +1, -1 or {self.num_envs} of them, got {goal!r}")
            self._goal[which] = np.broadcast_to(goals, self.num_envs)[which]
        elif self.balanced_goals:
            odd = (np.arange(self.num_envs) + self._episode)[which] % 2
            self._goal[which] = 1 - 2 * odd
        else:
            self._goal[which] = 2 * self.streams.below(2, which) - 1
        self._episode[which] += 1

    def _observations(self, moved: np.ndarray) -> np.ndarray:
        observations = np.empty((self.num_envs, 4), np.float32)
        observations[:, 0] = self._y
        observations[:, 1] = self._goal * (self._t < self.hint_steps)
        observations[:, 2] = self._x == self.corridor_length
        if self.noise:
            self._noise[moved] = self.streams.below(3, moved) - 1
        observations[:, 3] = self._noise
        return observations

    def _info(self, which: np.ndarray) -> dict[str, Any]:
        return {"x": self._x.copy(), "_x": which.copy(), "goal": self._goal.copy(), "_goal": which.copy()}

    def _seeded(self, which: np.ndarray) -> None:
        self._episode[which] = 0


def make(num_envs: int, autoreset_mode: AutoresetMode, **options: Any) -> TMazeVector:
    """Mazes for evaluation, with as many goals up as down; for recording, seeded one by one, goals are drawn."""
    evaluated = autoreset_mode is AutoresetMode.NEXT_STEP
    return TMazeVector(num_envs, balanced_goals=evaluated, autoreset_mode=autoreset_mode, **options)
