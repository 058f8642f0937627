"""The scripted expert of Minigrid-Memory: it knows the building's plan and nothing but the images it was shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX

from rate.envs.minigrid.env import FORWARD, LEFT, RIGHT, drawn_tile
from rate.envs.policy import SideBySide

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

_EAST, _SOUTH, _WEST, _NORTH = range(4)
_AHEAD = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""What a step forward adds to (x, y), by heading; y grows to the south."""
_KINDS = {"key": ("key", "green"), "ball": ("ball", "green"), "wall": ("wall", "grey")}


class MinigridMemoryPlayer:
    """Plays one episode at a time; see :class:`rate.envs.policy.Player`.

    1. Turn round and walk west until the room's object, one cell north of the corridor's row, has been seen.
    2. Walk east until a wall is in front: that is the junction.
    3. Look north. If the object two cells away is of the kind seen in the room go there, else to the other end.

    Every choice rests on what was seen before, so a policy with memory can imitate all of them.

    Args:
        view: V, cells along the view's side.
        tile_size: pixels of a cell's side.
    """

    def __init__(self, view: int, tile_size: int) -> None:
        self.view, self.tile = view, tile_size
        self._kind = {
            drawn_tile((OBJECT_TO_IDX[thing], COLOR_TO_IDX[colour], 0), False, tile_size).tobytes(): kind
            for kind, (thing, colour) in _KINDS.items()
        }
        self.begin(0)

    def begin(self, seed: int) -> None:
        """An episode begins, facing east."""
        self._heading = _EAST
        self._cue: str | None = None
        self._north: str | None = None
        self._wall_ahead = self._arrived = False

    def see(self, observation: np.ndarray, action: int | np.ndarray | None) -> None:
        """Turns with the last action and notes the objects in view, image uint8 ``[3, V * tile, V * tile]``."""
        if action is not None and action != FORWARD:
            self._heading = (self._heading + (1 if action == RIGHT else -1)) % 4
        view, tile = self.view, self.tile
        tiles = observation.reshape(3, view, tile, view, tile)
        self._wall_ahead = self._kind.get(tiles[:, view - 2, :, view // 2].tobytes()) == "wall"
        for row in range(view):
            for column in range(view):
                kind = self._kind.get(tiles[:, row, :, column].tobytes())
                if kind in ("key", "ball"):
                    self._note(kind, ahead=view - 1 - row, right=column - view // 2)

    def act(self) -> int:
        """The next action."""
        if self._cue is None:
            return FORWARD if self._heading == _WEST else self._turn(_WEST)
        if not self._arrived:
            if self._heading != _EAST:
                return self._turn(_EAST)
            if not self._wall_ahead:
                return FORWARD
            self._arrived = True
        goal = _NORTH if self._north in (None, self._cue) else _SOUTH
        return FORWARD if self._heading == goal else self._turn(goal)

    def _turn(self, goal: int) -> int:
        return RIGHT if (goal - self._heading) % 4 == 1 else LEFT

    def _note(self, kind: str, ahead: int, right: int) -> None:
        """An object ``ahead`` cells in front and ``right`` to the right: the room's, or one at an end."""
        y = ahead * _AHEAD[self._heading][1] + right * _AHEAD[(self._heading + 1) % 4][1]
        if y == -1:
            self._cue = kind
        elif abs(y) == 2:  # the two ends hold different kinds
            self._north = kind if y == -2 else {"key": "ball", "ball": "key"}[kind]


def expert(env: VectorEnv) -> SideBySide:
    """The expert for a vector environment."""
    view, tile = (env.get_attr(name)[0] for name in ("agent_view_size", "tile_pixels"))  # type: ignore[attr-defined]
    return SideBySide([MinigridMemoryPlayer(view, tile) for _ in range(env.num_envs)])
