"""ViZDoom Two-Colors: a pillar shows a colour and is gone; only gems of that colour heal."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import gymnasium
import numpy as np
import vizdoom

from rate.envs.arguments import whole_number
from rate.envs.vizdoom.wad import MAPS, scenario_path

if TYPE_CHECKING:
    from collections.abc import Iterator

LEFT, RIGHT, FORWARD, LEFT_FORWARD, RIGHT_FORWARD = range(5)
_BUTTONS = ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1])
"""Turn left, turn right, move forward, by action."""
_SIZE = (64, 112)
_NEVER = 10_000_000
"""Tics: the environment ends its episodes itself."""
_STARTING = threading.Lock()


class Surroundings(NamedTuple):
    """What the player does not see.

    Args:
        position: float64 ``[2]``, of the player, in map units; the room is 1280 of them wide, 0 in its middle.
        velocity: float64 ``[2]``, map units a tic.
        angle: of the player's view in degrees, 0 along the first axis, counted to the left.
        red: float64 ``[n, 2]``, positions of the red gems.
        green: float64 ``[n, 2]``, positions of the green gems.
    """

    position: np.ndarray
    velocity: np.ndarray
    angle: float
    red: np.ndarray
    green: np.ndarray


class TwoColors(gymnasium.Env[np.ndarray, np.int64]):
    """A room with an acid floor. Gems of the pillar's colour heal, those of the other one hurt.

    The player starts with 100 health in front of a red or green pillar, which is gone after ``cue_tics`` tics. The
    acid takes 8 health about every 32 tics. A gem of the pillar's colour gives 25 health (up to 100), one of the
    other takes 25. Neither health nor the colour is on the screen afterwards.

    Observation: uint8 ``[3, 64, 112]``, the view in front of the player, channels first. Action, ``Discrete(5)``:
    0 turn left, 1 turn right, 2 forward, 3 left and forward, 4 right and forward; held for ``frame_skip`` tics.
    Reward: 0.01 for each tic survived, and 1 for a step at whose end there is more health than before.

    An episode terminates with the player's death and is truncated after ``max_steps`` steps. ``reset`` takes
    ``options={"colour": "red"}`` or ``"green"``; otherwise the seed decides. ``info`` holds ``is_red`` (bool) and
    ``health`` (float), and on the last step ``red_return`` or ``green_return``, the episode's return under the name
    of its colour.

    The game runs in a process of its own, started by the first reset and ended by ``close``.

    Args:
        max_steps: steps of an episode.
        frame_skip: tics of a step.
        cue_tics: tics the pillar stands.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ValueError, TypeError: for an argument out of range or of the wrong type.
        gymnasium.error.ResetNeeded: when an episode that has ended, or not begun, is stepped.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 17}  # noqa: RUF012 - as Gymnasium does

    def __init__(
        self,
        max_steps: int = 2100,
        frame_skip: int = 2,
        cue_tics: int = 90,
        render_mode: str | None = None,
    ) -> None:
        self.max_steps = whole_number("max_steps", max_steps, at_least=1)
        self.frame_skip = whole_number("frame_skip", frame_skip, at_least=1)
        self.cue_tics = whole_number("cue_tics", cue_tics, at_least=1)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, (3, *_SIZE), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(len(_BUTTONS))
        self._game: vizdoom.DoomGame | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._running = self.is_red = False
        self._t, self._health, self._earned = 0, 0.0, 0.0
        self._screen = np.zeros((180, 320, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in front of a pillar."""
        super().reset(seed=seed)
        colour = (options or {}).get("colour", ("green", "red")[self.np_random.integers(2)])
        if colour not in MAPS:
            raise ValueError(f"options['colour'] must be red or green, got {colour!r}")
        if self._game is None:
            self._game = self._start()
        self.is_red = colour == "red"
        self._game.set_seed(int(self.np_random.integers(2**31 - 1)))
        self._game.set_doom_map(MAPS[colour])
        self._game.new_episode()
        self._t, self._earned, self._running = 0, 0.0, True
        self._health = self._variable("HEALTH")
        return self._observation(), {"is_red": self.is_red, "health": self._health}

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Turn or walk; returns (observation, reward, terminated, truncated, info)."""
        if not self._running or self._game is None:
            raise gymnasium.error.ResetNeeded("the episode is over or not begun: call reset() before step()")
        if not 0 <= action < len(_BUTTONS):
            raise ValueError(
                "action must be 0 (left), 1 (right), 2 (forward), 3 (left and forward) or 4 (right and forward), "
                f"got {action!r}"
            )
        reward = self._game.make_action(_BUTTONS[int(action)], self.frame_skip)
        before, self._health = self._health, self._variable("HEALTH")
        reward += self._health > before
        self._t += 1
        self._earned += reward
        terminated = self._game.is_player_dead() or self._game.is_episode_finished()
        truncated = not terminated and self._t >= self.max_steps
        self._running = not (terminated or truncated)
        info: dict[str, Any] = {"is_red": self.is_red, "health": self._health}
        if not self._running:
            info["red_return" if self.is_red else "green_return"] = self._earned
        return self._observation(), float(reward), terminated, truncated, info

    def surroundings(self) -> Surroundings | None:
        """Where the player and the gems are; None where no episode is running. Not part of the observation."""
        state = self._game.get_state() if self._running and self._game is not None else None
        if state is None:
            return None
        gems: dict[str, list[tuple[float, float]]] = {"RedGem": [], "GreenGem": []}
        for thing in state.objects:
            if thing.name in gems:
                gems[thing.name].append((thing.position_x, thing.position_y))
        red, green = (np.array(places).reshape(-1, 2) for places in gems.values())
        position = np.array([self._variable("POSITION_X"), self._variable("POSITION_Y")])
        velocity = np.array([self._variable("VELOCITY_X"), self._variable("VELOCITY_Y")])
        return Surroundings(position, velocity, self._variable("ANGLE"), red, green)

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The view as the engine drew it, uint8 ``[180, 320, 3]``; None without a render mode."""
        return None if self.render_mode is None else self._screen.copy()

    def close(self) -> None:
        """Ends the game's process."""
        self._running = False
        if self._game is not None:
            self._game.close()
            self._game = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _observation(self) -> np.ndarray:
        state = self._game.get_state() if self._game is not None else None
        if state is not None:  # there is none after death: the last one stays
            self._screen = state.screen_buffer
        # Bilinear, as the published code's resize is in effect.
        small = cv2.resize(self._screen, _SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(np.moveaxis(small, -1, 0))

    def _variable(self, name: str) -> float:
        assert self._game is not None
        return float(self._game.get_game_variable(getattr(vizdoom.GameVariable, name)))

    def _start(self) -> vizdoom.DoomGame:
        self._folder = TemporaryDirectory(prefix="rate-vizdoom-", ignore_cleanup_errors=True)
        game = vizdoom.DoomGame()
        game.set_doom_config_path(os.path.join(self._folder.name, "vizdoom.ini"))
        game.set_doom_scenario_path(str(scenario_path(self.cue_tics)))
        game.set_doom_map(MAPS["red"])
        game.set_mode(vizdoom.Mode.PLAYER)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X180)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        for hidden in ("hud", "crosshair", "weapon", "decals", "particles"):
            getattr(game, f"set_render_{hidden}")(False)
        game.set_available_buttons(
            [vizdoom.Button.TURN_LEFT, vizdoom.Button.TURN_RIGHT, vizdoom.Button.MOVE_FORWARD]
        )
        game.set_available_game_variables([vizdoom.GameVariable.HEALTH])
        game.set_living_reward(0.01)
        game.set_episode_timeout(_NEVER)
        game.set_objects_info_enabled(True)  # no slower: the positions of some dozens of gems
        with _working_folder(self._folder.name):
            game.init()
        return game


@contextmanager
def _working_folder(folder: str) -> Iterator[None]:
    """The engine makes a folder ``_vizdoom`` in the current folder when it starts, whatever it is told."""
    with _STARTING:
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            with suppress(FileNotFoundError):  # somebody removed it meanwhile
                os.chdir(before)
