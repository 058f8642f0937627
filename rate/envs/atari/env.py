"""Atari games as the DQN replay data sets show them."""

from __future__ import annotations

from typing import Any

import ale_py
import cv2
import gymnasium
import numpy as np

from rate.envs.arguments import finite_number, whole_number

_SIDE = 84
_SKIP = 4
"""Emulator frames of a step."""


class Atari(gymnasium.Env[np.ndarray, np.int64]):
    """One game on the Arcade Learning Environment, with Dopamine's preprocessing.

    An action is held for 4 frames. What is seen of them is the brighter of the last two at each pixel, in grey,
    made 84 x 84 by averaging. With probability ``sticky`` the emulator repeats, frame by frame, the action before.

    Observation: uint8 ``[4, 84, 84]``, the latest four of these views, oldest first, zeros before the episode's
    start. Action: ``Discrete``, the game's own minimal set in the emulator's order. Reward: points, not clipped (the
    replay data sets hold them clipped to [-1, 1]).

    An episode terminates when the game is over, not with each life, and is truncated after ``max_steps`` steps.
    ``info`` holds ``lives`` (int).

    Args:
        game: as the emulator spells its file, such as ``"breakout"``.
        sticky: probability of a repeated action.
        max_steps: steps of an episode.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ValueError, TypeError: for an argument out of range or of the wrong type.
        gymnasium.error.ResetNeeded: when an episode that has ended, or not begun, is stepped.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 - as Gymnasium does

    def __init__(
        self,
        game: str,
        sticky: float = 0.25,
        max_steps: int = 27_000,
        render_mode: str | None = None,
    ) -> None:
        self.sticky = finite_number("sticky", sticky)
        if not 0 <= self.sticky < 1:
            raise ValueError(f"sticky must be a probability below 1, got {sticky}")
        self.max_steps = whole_number("max_steps", max_steps, at_least=1)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
        if game not in ale_py.roms.get_all_rom_ids():
            raise ValueError(f"game must be one of the emulator's, got {game!r}")
        self.game, self.render_mode = game, render_mode
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", self.sticky)
        self._load(0)
        self._actions = self._ale.getMinimalActionSet()
        self.observation_space = gymnasium.spaces.Box(0, 255, (4, _SIDE, _SIDE), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(len(self._actions))
        self._screens = np.zeros((2, *self._ale.getScreenDims()), np.uint8)
        self._views = np.zeros((4, _SIDE, _SIDE), np.uint8)
        self._t, self._running, self._seeded = 0, False, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a game."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._load(int(self.np_random.integers(2**31 - 1)))
            self._seeded = True
        self._ale.reset_game()
        self._t, self._running = 0, True
        self._views[:] = self._screens[:] = 0
        self._ale.getScreenGrayscale(self._screens[1])
        return self._observation(), {"lives": self._ale.lives()}

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold an action for 4 frames; returns (observation, reward, terminated, truncated, info)."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("the episode is over or not begun: call reset() before step()")
        if not 0 <= action < len(self._actions):
            names = ", ".join(f"{i} {a.name.lower()}" for i, a in enumerate(self._actions))
            raise ValueError(f"action must be one of {names}, got {action!r}")
        held, reward = self._actions[int(action)], 0.0
        for frame in range(_SKIP):
            reward += self._ale.act(held)
            if self._ale.game_over():
                break
            if frame >= _SKIP - 2:
                self._ale.getScreenGrayscale(self._screens[frame - _SKIP])
        self._t += 1
        terminated = bool(self._ale.game_over())
        truncated = not terminated and self._t >= self.max_steps
        self._running = not (terminated or truncated)
        return self._observation(), reward, terminated, truncated, {"lives": self._ale.lives()}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The screen, uint8 ``[210, 160, 3]``; None without a render mode."""
        return None if self.render_mode is None else self._ale.getScreenRGB()

    def _observation(self) -> np.ndarray:
        brighter = np.maximum(self._screens[0], self._screens[1])
        self._views[:-1] = self._views[1:]
        self._views[-1] = cv2.resize(brighter, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        return self._views.copy()

    def _load(self, seed: int) -> None:
        """The emulator takes a seed only with a game's file."""
        self._ale.setInt("random_seed", seed)
        self._ale.loadROM(ale_py.roms.get_rom_path(self.game))  # type: ignore[arg-type]  # it is there
