"""What environments that step many episodes with a few numpy operations have in common: seeds, resets, ends."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rate.envs.arguments import whole_number
from rate.envs.streams import Streams


class SeededVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """``num_envs`` environments with discrete actions, each drawing from a stream of its own.

    What an environment does depends on its seed and its actions alone: neither on how many others there are nor on
    when they end. ``reset`` takes ``seed`` as an int (environment ``i`` gets ``seed + i``) or as one int per
    environment, and in ``options`` ``"reset_mask"``, bool ``[num_envs]``, to reset only some environments.

    Args:
        num_envs: at least 1.
        observation_space: of one environment.
        action_space: of one environment.
        autoreset_mode: ``NEXT_STEP`` (an ended environment ignores its next action and starts anew with it)
            or ``DISABLED`` (it must be reset with ``"reset_mask"`` before the next step).

    Raises:
        ValueError: for an argument out of range, naming it.
        TypeError: for an argument of the wrong type.
        gymnasium.error.ResetNeeded: when stepped before the first reset, or, with ``DISABLED``, after an end.
    """

    def __init__(
        self,
        num_envs: int,
        observation_space: gymnasium.spaces.Box,
        action_space: gymnasium.spaces.Discrete,
        autoreset_mode: AutoresetMode | str,
    ) -> None:
        self.num_envs = whole_number("num_envs", num_envs, at_least=1)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self._ended = np.zeros(self.num_envs, bool)
        self._everyone = np.ones(self.num_envs, bool)
        self._streams: Streams | None = None  # none until the first reset

    @abstractmethod
    def _begin(self, which: np.ndarray, options: dict[str, Any]) -> None:
        """Puts the environments ``which``, bool ``[num_envs]``, at the start of a new episode."""

    @abstractmethod
    def _advance(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """One step of all: rewards, terminated, truncated, and what ``info`` says of those that end."""

    @abstractmethod
    def _observations(self, moved: np.ndarray) -> np.ndarray:
        """Of all environments, with new noise in those that ``moved``."""

    def _check_actions(self, actions: np.ndarray) -> None:
        """Raises ValueError for an action that is not there."""

    def _info(self, which: np.ndarray) -> dict[str, Any]:
        """What ``info`` says of the environments ``which`` at every step."""
        return {}

    def _seeded(self, which: np.ndarray) -> None:
        """The environments ``which`` were given a seed."""

    @property
    def streams(self) -> Streams:
        """The environments' random numbers. Raises ResetNeeded before the first reset."""
        if self._streams is None:
            raise gymnasium.error.ResetNeeded("call reset() before the first step()")
        return self._streams

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
        self._begin(which, options)
        self._ended[which] = False
        return self._observations(which), self._info(which)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Move every environment once; returns (observations, rewards, terminated, truncated, info)."""
        if self._streams is None:
            raise gymnasium.error.ResetNeeded("call reset() before the first step()")
        actions = self._checked_actions(actions)
        restart = self._ended.copy()
        if restart.any() and self.autoreset_mode is AutoresetMode.DISABLED:
            raise gymnasium.error.ResetNeeded(
                f"environments {np.flatnonzero(restart).tolist()} have ended: "
                "reset them with options={'reset_mask': ...} before the next step()"
            )
        rewards, terminated, truncated, said = self._advance(actions)
        if restart.any():
            self._begin(restart, {})
            rewards[restart], terminated[restart], truncated[restart] = 0.0, False, False
        self._ended = terminated | truncated
        info = self._info(self._everyone)
        if self._ended.any():
            for name, values in said.items():
                info[name], info[f"_{name}"] = values & self._ended, self._ended.copy()
        return self._observations(self._everyone), rewards, terminated, truncated, info

    def _checked_actions(self, actions: np.ndarray) -> np.ndarray:
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be integers of shape ({self.num_envs},), "
                f"got {actions.dtype} of shape {actions.shape}"
            )
        self._check_actions(actions)
        return actions

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
        self._seeded(seeded)


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
