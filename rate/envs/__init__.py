"""Environments that need memory. Importing this package registers ``rate/TMaze-v0`` with Gymnasium."""

import gymnasium

from rate.envs.experts import TMazeExpert
from rate.envs.tmaze import TMaze
from rate.envs.tmaze_vector import TMazeVector

TMAZE_ID = "rate/TMaze-v0"

if TMAZE_ID not in gymnasium.registry:
    # No max_episode_steps: the time limit depends on the corridor, and the environment keeps it itself.
    gymnasium.register(
        id=TMAZE_ID,
        entry_point="rate.envs.tmaze:TMaze",
        vector_entry_point="rate.envs.tmaze_vector:TMazeVector",
    )

__all__ = ["TMAZE_ID", "TMaze", "TMazeExpert", "TMazeVector"]
