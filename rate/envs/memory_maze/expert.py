"""The planner of Memory Maze: it knows the maze and where all objects are, and rolls the shortest way."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from rate.envs.memory_maze.env import FORWARD, FORWARD_LEFT, FORWARD_RIGHT, LEFT, NONE, RIGHT

if TYPE_CHECKING:
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

Cell = tuple[int, int]

_TURN, _STEER = 1.3, 0.16
"""Radians off course from which it turns where it is, and from which it steers."""
_MARGIN = 0.25
"""Cells that stay free beside the middle of the ball."""


class MemoryMazePlanner:
    """Heads for the wanted object along the shortest way through the maze.

    Maze and objects are known without having been seen (privileged), so a model cannot learn from it how to find an
    object for the first time, but where to go once it was seen.

    Args:
        env: of Memory Maze environments, in this process or in others.
    """

    def __init__(self, env: SyncVectorEnv | AsyncVectorEnv) -> None:
        self.env = env

    def start(self, env_ids: np.ndarray, seeds: np.ndarray) -> None:
        """See :class:`rate.envs.Policy`."""

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        """Actions int64 ``[B]``."""
        known = self.env.call("surroundings")
        return np.array([NONE if seen is None else towards_target(seen) for seen in known])


def towards_target(seen: dict[str, np.ndarray]) -> int:
    """The action that brings the agent on its way, from the extra observations of one environment."""
    layout, here, target = seen["maze_layout"], seen["agent_pos"], seen["target_pos"]
    way = shortest_way(layout, _cell(here, layout), _cell(target, layout))
    aim = target if len(way) < 2 else _next_aim(layout, here, way, target)
    course = np.arctan2(*(aim - here)[::-1]) - np.arctan2(*seen["agent_dir"][::-1])
    off = (course + np.pi) % (2 * np.pi) - np.pi
    if abs(off) > _TURN:
        return LEFT if off > 0 else RIGHT
    if abs(off) > _STEER:
        return FORWARD_LEFT if off > 0 else FORWARD_RIGHT
    return FORWARD


def shortest_way(layout: np.ndarray, start: Cell, goal: Cell) -> list[Cell]:
    """Cells (x, y) from ``start`` to ``goal``, both included; empty where there is no way.

    Args:
        layout: ``[y, x]``, 0 where there is a wall.
        start: first cell.
        goal: last cell.
    """
    height, width = layout.shape
    next_cell: dict[Cell, Cell] = {goal: goal}  # of each cell that the goal can be reached from
    reached = deque([goal])
    while reached and start not in next_cell:
        x, y = cell = reached.popleft()
        for neighbour in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            inside = 0 <= neighbour[0] < width and 0 <= neighbour[1] < height
            if inside and layout[neighbour[1], neighbour[0]] and neighbour not in next_cell:
                next_cell[neighbour] = cell
                reached.append(neighbour)
    if start not in next_cell:
        return []
    way = [start]
    while way[-1] != goal:
        way.append(next_cell[way[-1]])
    return way


def _next_aim(layout: np.ndarray, here: np.ndarray, way: list[Cell], target: np.ndarray) -> np.ndarray:
    """The farthest place of the way that can be rolled to in a straight line."""
    places = [*(np.array(cell) + 0.5 for cell in way[1:-1]), target]
    aim = places[0]
    for place in places[1:]:
        if not _free(layout, here, place):
            break
        aim = place
    return aim


def _free(layout: np.ndarray, start: np.ndarray, end: np.ndarray) -> bool:
    """Whether a strip as wide as the ball, from ``start`` to ``end``, meets no wall."""
    along = end - start
    length = float(np.hypot(*along))
    aside = _MARGIN * np.array([-along[1], along[0]]) / max(length, 1e-9)
    points = start + np.linspace(0, 1, int(length / 0.1) + 2)[:, None] * along
    x, y = np.concatenate([points + aside, points - aside]).astype(int).T
    return bool(layout[np.clip(y, 0, len(layout) - 1), np.clip(x, 0, layout.shape[1] - 1)].all())


def _cell(position: np.ndarray, layout: np.ndarray) -> Cell:
    x, y = np.clip(position.astype(int), 0, np.array(layout.shape[::-1]) - 1).tolist()
    return x, y


def expert(env: SyncVectorEnv | AsyncVectorEnv) -> MemoryMazePlanner:
    """The planner for a vector environment."""
    return MemoryMazePlanner(env)
