"""Minigrid-Memory as the paper has it: a corridor seen through a small window, as an image."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from minigrid.core.constants import OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import WorldObj
from minigrid.envs.memory import MemoryEnv

from rate.envs.arguments import switch, whole_number

LEFT, RIGHT, FORWARD = range(3)
_UP = 3
"""The agent is drawn facing up in its own view."""


class MinigridMemory(MemoryEnv):
    """An object is shown in a room; at the corridor's other end stand two objects, and the agent goes to the same one.

    The start is somewhere in room or corridor, facing away from the room, so the agent may first have to go back and
    look. It sees ``agent_view_size`` x ``agent_view_size`` cells in front of it, as an image: the same pixels as
    Minigrid's ``RGBImgPartialObsWrapper`` gives, put together from tiles drawn once.

    Observation: uint8 ``[3, V * tile_size, V * tile_size]``, channels first. Action, ``Discrete(3)``: 0 turn left,
    1 turn right, 2 forward. Reward: ``1 - 0.9 t / max_steps`` on reaching the right object at step t, else 0.

    An episode terminates at either object and is truncated after ``time_limit`` steps. ``info["success"]`` (bool)
    comes with the step that ends it.

    Args:
        size: cells along the grid, odd and at least 7.
        random_length: whether the corridor's length is drawn.
        max_steps: of the reward's scale; 845 is that of the 13 x 13 grid, which the paper keeps at every size.
        time_limit: steps of an episode, at most ``max_steps``.
        agent_view_size: V, odd and at least 3.
        tile_size: pixels of a cell's side.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ValueError, TypeError: for an argument out of range or of the wrong type.
    """

    def __init__(
        self,
        size: int = 41,
        random_length: bool = True,
        max_steps: int = 845,
        time_limit: int = 500,
        agent_view_size: int = 3,
        tile_size: int = 28,
        render_mode: str | None = None,
    ) -> None:
        self.tile_pixels = whole_number("tile_size", tile_size, at_least=8)
        self.time_limit = whole_number("time_limit", time_limit, at_least=1)
        for name, value, at_least in (("size", size, 7), ("agent_view_size", agent_view_size, 3)):
            if whole_number(name, value, at_least) % 2 == 0:
                raise ValueError(f"{name} must be odd, got {value}")
        if self.time_limit > whole_number("max_steps", max_steps, at_least=1):
            raise ValueError(f"time_limit must be at most max_steps = {max_steps}, got {time_limit}")
        super().__init__(
            size=size,
            random_length=switch("random_length", random_length),
            max_steps=max_steps,
            agent_view_size=agent_view_size,
            render_mode=render_mode,
        )
        side = agent_view_size * tile_size
        self.observation_space = gymnasium.spaces.Box(0, 255, (3, side, side), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(3)

    def reset(  # type: ignore[override]
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in a new grid."""
        symbols, info = super().reset(seed=seed, options=options)
        return self._image(symbols["image"]), info

    def step(  # type: ignore[override]
        self, action: int | np.int64
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Turn or walk; returns (observation, reward, terminated, truncated, info)."""
        if action not in (LEFT, RIGHT, FORWARD):
            raise ValueError(f"action must be 0 (left), 1 (right) or 2 (forward), got {action!r}")
        symbols, reward, terminated, truncated, _ = super().step(int(action))
        truncated = not terminated and (truncated or self.step_count >= self.time_limit)
        info = {"success": bool(reward > 0)} if terminated or truncated else {}
        return self._image(symbols["image"]), float(reward), terminated, truncated, info

    def _image(self, symbols: np.ndarray) -> np.ndarray:
        """Pixels uint8 ``[3, V * tile, V * tile]`` of what Minigrid encodes as ``[V, V, 3]`` (column, row, symbol)."""
        view, tile = self.agent_view_size, self.tile_pixels
        image = np.empty((3, view, tile, view, tile), np.uint8)
        for column in range(view):
            for row in range(view):
                here = (column, row) == (view // 2, view - 1)
                image[:, row, :, column] = drawn_tile(tuple(symbols[column, row].tolist()), here, tile)
        return image.reshape(3, view * tile, view * tile)


_drawn: dict[tuple[Any, ...], np.ndarray] = {}


def drawn_tile(symbol: tuple[int, int, int], agent: bool, tile_size: int) -> np.ndarray:
    """A cell's pixels uint8 ``[3, tile, tile]``, kept once drawn.

    Args:
        symbol: type, colour and state as Minigrid encodes them.
        agent: whether the agent stands there.
        tile_size: pixels of its side.
    """
    key = (symbol, agent, tile_size)
    if key not in _drawn:
        hidden = symbol[0] == OBJECT_TO_IDX["unseen"]
        thing = None if hidden or symbol[0] == OBJECT_TO_IDX["empty"] else WorldObj.decode(*symbol)
        pixels = Grid.render_tile(thing, _UP if agent else None, highlight=not hidden, tile_size=tile_size)
        _drawn[key] = np.ascontiguousarray(np.moveaxis(pixels, -1, 0), np.uint8)
    return _drawn[key]
