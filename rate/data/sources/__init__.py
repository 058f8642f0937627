"""Readers of data sets: one file per layout, and :func:`open_source`, which tells layouts apart.

h5py and Minari are imported when first used.
"""

from rate.data.sources.d4rl import D4RLEpisodes
from rate.data.sources.dqn_replay import DqnReplayEpisodes
from rate.data.sources.episode_npz import NpzEpisodes
from rate.data.sources.gym_pickle import GymPickleEpisodes
from rate.data.sources.lazy import LazyEpisodes
from rate.data.sources.minari import MinariEpisodes
from rate.data.sources.opening import open_source
from rate.data.sources.tmaze_pickle import TMazePickleEpisodes

__all__ = [
    "D4RLEpisodes",
    "DqnReplayEpisodes",
    "GymPickleEpisodes",
    "LazyEpisodes",
    "MinariEpisodes",
    "NpzEpisodes",
    "TMazePickleEpisodes",
    "open_source",
]
