"""Environments that need memory, and the classic ones of the paper, behind one registry.

Importing this package registers ``rate/TMaze-v0`` with Gymnasium; the packages that other tasks need are imported
when their environments are made.
"""

import gymnasium

from rate.envs.policy import Policy, load_policy
from rate.envs.registry import FAMILIES, Task, make, make_vec, parse_options, task, task_of, tasks
from rate.envs.score import Figure, Score, mean_interval
from rate.envs.tmaze import TMaze, TMazeExpert, TMazeVector

TMAZE_ID = "rate/TMaze-v0"

if TMAZE_ID not in gymnasium.registry:
    # No max_episode_steps: the time limit depends on the corridor, and the environment keeps it itself.
    gymnasium.register(
        id=TMAZE_ID,
        entry_point="rate.envs.tmaze:TMaze",
        vector_entry_point="rate.envs.tmaze:TMazeVector",
    )

__all__ = [
    "FAMILIES",
    "TMAZE_ID",
    "Figure",
    "Policy",
    "Score",
    "TMaze",
    "TMazeExpert",
    "TMazeVector",
    "Task",
    "load_policy",
    "make",
    "make_vec",
    "mean_interval",
    "parse_options",
    "task",
    "task_of",
    "tasks",
]
