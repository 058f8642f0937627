"""Players of the labyrinths: they draw a map of what they have seen and walk to the nearest open end of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from rate.envs.popgym.experts.base import TaskPlayer

Cell = tuple[int, int]

_WALL, _START, _EXIT = 1, 2, 3
_MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))
"""Row and column of the actions left, right, up, down."""


class _LabyrinthPlayer(TaskPlayer):
    """Keeps a map with the start at (0, 0): what each cell holds, and which were visited.

    The view is the 3 x 3 cells around, but in the first row or column of the maze it begins at the agent itself and is
    filled up with walls at its end. Only the start can lie there, and it is marked.
    """

    def first(self, values: np.ndarray) -> None:
        view = values[:9].reshape(3, 3)
        row, column = (int(i) for i in np.argwhere(view == _START)[0])
        self._here: Cell = (0, 0)
        self._map: dict[Cell, int] = {}
        self._visited = {self._here}
        self._draw(view[: row + 2, : column + 2], (-row, -column))

    def later(self, values: np.ndarray, action: Any) -> None:
        after = self._beside(int(action))
        if self._map.get(after, _WALL) != _WALL:
            self._here = after
            self._visited.add(after)
        if self._here != (0, 0):
            self._draw(values[:9].reshape(3, 3), (self._here[0] - 1, self._here[1] - 1))

    def act(self) -> int:
        return self._towards(self._wanted)

    def _wanted(self, cell: Cell) -> bool:
        raise NotImplementedError

    def _beside(self, action: int) -> Cell:
        return self._here[0] + _MOVES[action][0], self._here[1] + _MOVES[action][1]

    def _draw(self, view: np.ndarray, corner: Cell) -> None:
        for (row, column), value in np.ndenumerate(view):
            self._map[corner[0] + row, corner[1] + column] = int(value)

    def _towards(self, wanted: Callable[[Cell], bool]) -> int:
        """The first move of a shortest way over known cells to one that is wanted; left if there is none."""
        queue: deque[tuple[Cell, int]] = deque()
        reached = {self._here}
        for action in range(4):
            queue.append((self._beside(action), action))
        while queue:
            cell, action = queue.popleft()
            if cell in reached or self._map.get(cell, _WALL) == _WALL:
                continue
            if wanted(cell):
                return action
            reached.add(cell)
            queue.extend(((cell[0] + i, cell[1] + j), action) for i, j in _MOVES)
        return 0


class LabyrinthExplorePlayer(_LabyrinthPlayer):
    """Walks to the nearest cell it has not been to."""

    def _wanted(self, cell: Cell) -> bool:
        return cell not in self._visited


class LabyrinthEscapePlayer(_LabyrinthPlayer):
    """Walks to the exit once it is in sight, till then to the nearest cell from where it would see something new."""

    def act(self) -> int:
        if _EXIT in self._map.values():
            return self._towards(lambda cell: self._map[cell] == _EXIT)
        return super().act()

    def _wanted(self, cell: Cell) -> bool:
        row, column = cell
        return cell not in self._visited and any(
            (row + i, column + j) not in self._map for i in (-1, 0, 1) for j in (-1, 0, 1)
        )
