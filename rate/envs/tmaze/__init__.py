"""Passive T-Maze: the environment, many of them at once, and an expert."""

from rate.envs.tmaze.expert import TMazeExpert
from rate.envs.tmaze.maze import TMaze
from rate.envs.tmaze.vector import TMazeVector

__all__ = ["TMaze", "TMazeExpert", "TMazeVector"]
