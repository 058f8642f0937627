"""Passive T-Maze: see a hint, walk a corridor, turn the way the hint said."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from rate.envs.arguments import finite_number, switch, whole_number

RIGHT, UP, LEFT, DOWN = range(4)
ACTION_NAMES = "0 (right), 1 (up), 2 (left) or 3 (down)"

# Column and row that each action moves by.
MOVE_X = np.array([1, 0, -1, 0])
MOVE_Y = np.array([0, 1, 0, -1])


class TMaze(gymnasium.Env[np.ndarray, np.int64]):
    """A corridor from ``x = 0`` to ``x = corridor_length`` that ends in a turn up or down.

    Only the first ``hint_steps`` observations say which turn is right, so a policy must remember for the
    whole corridor.

    Observation, float32 ``[4]``:
        0. ``y``: 0 in the corridor, +1 or -1 at the upper or lower end.
        1. ``hint``: +1 (up) or -1 (down) in the first ``hint_steps`` observations, then 0.
        2. ``flag``: 1 where ``x == corridor_length``, else 0.
        3. ``noise``: drawn from {-1, 0, 1} at every observation; always 0 with ``noise=False``.

    Action, ``Discrete(4)``: 0 right, 1 up, 2 left, 3 down. A blocked move leaves the agent where it is.

    Reward: ``goal_reward`` at the right end; 0 at the wrong end and at the time limit; on any other step
    ``penalty`` if the agent has fallen behind one cell a step (``x < t``), else 0.

    An episode terminates at either end and is truncated after ``corridor_length + 2`` steps. ``info`` holds
    ``x`` and ``goal`` (ints), and ``success`` (bool) on the step that ends the episode.
    ``reset(options={"goal": +1 or -1})`` chooses the goal instead of drawing it.

    Args:
        corridor_length: cells from the start to the junction, at least 1.
        noise: whether the fourth feature is random.
        penalty: reward of a step that is behind time; give it a negative value to punish dawdling.
        hint_steps: observations that show the hint, at least 1.
        goal_reward: reward at the right end.
        render_mode: ``"ansi"``, or None.

    Raises:
        ValueError: for an argument out of range, an unknown goal or an unknown action.
        TypeError: for an argument of the wrong type.
        gymnasium.error.ResetNeeded: when an episode that has ended, or not begun, is stepped.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012 - as Gymnasium does

    def __init__(
        self,
        corridor_length: int = 9,
        noise: bool = True,
        penalty: float = 0.0,
        hint_steps: int = 1,
        goal_reward: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        self.corridor_length = whole_number("corridor_length", corridor_length, at_least=1)
        self.noise = switch("noise", noise)
        self.penalty = finite_number("penalty", penalty)
        self.hint_steps = whole_number("hint_steps", hint_steps, at_least=1)
        self.goal_reward = finite_number("goal_reward", goal_reward)
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode must be 'ansi' or None, got {render_mode!r}")
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(4)
        self._x = self._y = self._t = self._goal = 0
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode at ``x = 0``; see the class for ``options``."""
        super().reset(seed=seed)
        goal = (options or {}).get("goal")
        if goal is None:
            goal = self.np_random.choice([-1, 1])
        elif goal not in (-1, 1):
            raise ValueError(f"options['goal'] must be +1 or -1, got {goal!r}")
        self._x = self._y = self._t = 0
        self._goal = int(goal)
        self._running = True
        return self._observation(), self._info()

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move once; returns (observation, reward, terminated, truncated, info)."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("the episode is over or not begun: call reset() before step()")
        if action not in (RIGHT, UP, LEFT, DOWN):
            raise ValueError(f"action must be {ACTION_NAMES}, got {action!r}")
        x = self._x + int(MOVE_X[action])
        y = self._y + int(MOVE_Y[action])
        in_corridor = y == 0 and 0 <= x <= self.corridor_length
        at_an_end = y != 0 and x == self.corridor_length
        if in_corridor or at_an_end:
            self._x, self._y = x, y
        self._t += 1

        terminated = self._y != 0
        truncated = not terminated and self._t >= self.corridor_length + 2
        info = self._info()
        if terminated or truncated:
            self._running = False
            info["success"] = self._y == self._goal
            reward = self.goal_reward if info["success"] else 0.0
        else:
            reward = self.penalty if self._x < self._t else 0.0
        return self._observation(), reward, terminated, truncated, info

    def render(self) -> str | None:  # type: ignore[override]
        """The maze as three lines of text (``A`` agent, ``G`` goal); None unless ``render_mode="ansi"``."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() does nothing unless render_mode='ansi'")
            return None
        rows = [[" "] * self.corridor_length + ["."], ["."] * (self.corridor_length + 1)]
        rows.append(list(rows[0]))
        if self._goal:
            rows[1 - self._goal][-1] = "G"
        rows[1 - self._y][self._x] = "A"
        return "\n".join("".join(row) for row in rows)

    def _observation(self) -> np.ndarray:
        hint = self._goal if self._t < self.hint_steps else 0
        flag = self._x == self.corridor_length
        noise = self.np_random.integers(-1, 2) if self.noise else 0
        return np.array([self._y, hint, flag, noise], np.float32)

    def _info(self) -> dict[str, Any]:
        return {"x": self._x, "goal": self._goal}
