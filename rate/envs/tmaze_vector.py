"""Many T-Mazes at once: the rules of :class:`rate.envs.TMaze`, each step a few numpy operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rate.envs.arguments import finite_number, switch, whole_number, whole_numbers
from rate.envs.streams import Streams
from rate.envs.tmaze import ACTION_NAMES, MOVE_X, MOVE_Y


class TMazeVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
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
        self.num_envs = whole_number("num_envs", num_envs, at_least=1)
        self.corridor_length = whole_numbers("corridor_length", corridor_length, self.num_envs, at_least=1)
        self.noise = switch("noise", noise)
        self.penalty = finite_number("penalty", penalty)
        self.hint_steps = whole_number("hint_steps", hint_steps, at_least=1)
        self.goal_reward = finite_number("goal_reward", goal_reward)
        self.balanced_goals = switch("balanced_goals", balanced_goals)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(4)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

        self._x, self._y, self._t, self._goal, self._episode = np.zeros((5, self.num_envs), np.int64)
        self._noise = np.zeros(self.num_envs, np.float32)
        self._ended = np.zeros(self.num_envs, bool)
        self._everyone = np.ones(self.num_envs, bool)
        self._streams: Streams | None = None  # none until the first reset

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,  # type: ignore[override]
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start episodes, in every environment or in those of ``options["reset_mask"]``; see the class."""
        options = options or {}
        which = self._everyone
        if "reset_mask" in options:
            which = _reset_mask(options["reset_mask"], self.num_envs)
            if self._streams is None and not which.all():
                raise gymnasium.error.ResetNeeded("the first reset must be of all environments")
        self._seed(seed, which)
        self._begin(which, options.get("goal"))
        return self._observations(which), self._info(which)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Move every environment once; returns (observations, rewards, terminated, truncated, info)."""
        if self._streams is None:
            raise gymnasium.error.ResetNeeded("call reset() before the first step()")
        actions = self._checked_actions(actions)
        restart = self._ended.copy()
        any_restart = bool(restart.any())
        if any_restart and self.autoreset_mode is AutoresetMode.DISABLED:
            raise gymnasium.error.ResetNeeded(
                f"environments {np.flatnonzero(restart).tolist()} have ended: "
                "reset them with options={'reset_mask': ...} before the next step()"
            )

        # A running agent is in the corridor (y = 0), so a move up or down counts at the junction only.
        at_junction = self._x == self.corridor_length
        self._y = MOVE_Y[actions] * at_junction
        self._x = np.minimum(np.maximum(self._x + MOVE_X[actions], 0), self.corridor_length)
        self._t = self._t + 1

        terminated = self._y != 0
        truncated = (self._t >= self.corridor_length + 2) & ~terminated
        success = self._y == self._goal
        ended = terminated | truncated
        rewards = np.where(
            ended, np.where(success, self.goal_reward, 0.0), np.where(self._x < self._t, self.penalty, 0.0)
        )
        if any_restart:
            self._begin(restart, None)
            running = ~restart
            rewards[restart] = 0.0
            terminated &= running
            truncated &= running
            ended &= running
        self._ended = ended

        info = self._info(self._everyone)
        if ended.any():
            info["success"] = success & ended
            info["_success"] = ended.copy()
        return self._observations(self._everyone), rewards, terminated, truncated, info

    def _checked_actions(self, actions: np.ndarray) -> np.ndarray:
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be integers of shape ({self.num_envs},), "
                f"got {actions.dtype} of shape {actions.shape}"
            )
        wrong = (actions < 0) | (actions > 3)
        if wrong.any():
            env = int(wrong.argmax())
            raise ValueError(f"actions must be {ACTION_NAMES}, got {actions[env]} for environment {env}")
        return actions

    def _begin(self, which: np.ndarray, goal: Any) -> None:
        """Put the environments ``which``, bool ``[num_envs]``, at the start of a new episode."""
        self._x[which] = self._y[which] = self._t[which] = 0
        self._ended[which] = False
        if goal is not None:
            goals = np.asarray(goal)
            if goals.shape not in ((), (self.num_envs,)) or not np.isin(goals, (-1, 1)).all():
                raise ValueError(f"options['goal'] must be +1, -1 or {self.num_envs} of them, got {goal!r}")
            self._goal[which] = np.broadcast_to(goals, self.num_envs)[which]
        elif self.balanced_goals:
            odd = (np.arange(self.num_envs) + self._episode)[which] % 2
            self._goal[which] = 1 - 2 * odd
        else:
            assert self._streams is not None
            self._goal[which] = 2 * self._streams.below(2, which) - 1
        self._episode[which] += 1

    def _observations(self, moved: np.ndarray) -> np.ndarray:
        """Of all environments, with new noise in those that ``moved``."""
        observations = np.empty((self.num_envs, 4), np.float32)
        observations[:, 0] = self._y
        observations[:, 1] = self._goal * (self._t < self.hint_steps)
        observations[:, 2] = self._x == self.corridor_length
        if self.noise:
            assert self._streams is not None
            self._noise[moved] = self._streams.below(3, moved) - 1
        observations[:, 3] = self._noise
        return observations

    def _info(self, which: np.ndarray) -> dict[str, Any]:
        return {"x": self._x.copy(), "_x": which.copy(), "goal": self._goal.copy(), "_goal": which.copy()}

    def _seed(self, seed: int | Sequence[int | None] | None, which: np.ndarray) -> None:
        """Restart the streams of the environments ``which`` that are given a seed."""
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
            seed = [int(seed) + i for i in range(self.num_envs)]
        if self._streams is None:
            self._streams = Streams(self.np_random.integers(0, 2**64, self.num_envs, np.uint64))
        if seed is None:
            return
        if len(seed) != self.num_envs:
            raise ValueError(f"seed must be an int or {self.num_envs} of them, got {len(seed)}")
        given = [0 if s is None else int(s) for s in seed]
        if min(given) < 0:
            raise ValueError(f"seed must not be negative, got {min(given)}")
        seeded = which & np.array([s is not None for s in seed])
        self._streams.seed(seeded, np.array([s % 2**64 for s in given], np.uint64)[seeded])
        self._episode[seeded] = 0


def _autoreset_mode(value: AutoresetMode | str) -> AutoresetMode:
    supported = {mode.value: mode for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED)}
    name = value.value if isinstance(value, AutoresetMode) else value
    if name not in supported:
        raise ValueError(f"autoreset_mode must be one of {', '.join(map(repr, supported))}, got {name!r}")
    return supported[name]


def _reset_mask(value: Any, num_envs: int) -> np.ndarray:
    mask = np.asarray(value)
    if mask.dtype != np.bool_ or mask.shape != (num_envs,):
        raise ValueError(
            f"options['reset_mask'] must be bool of shape ({num_envs},), "
            f"got {mask.dtype} of shape {mask.shape}"
        )
    if not mask.any():
        raise ValueError("options['reset_mask'] must select at least one environment, got none")
    return mask
