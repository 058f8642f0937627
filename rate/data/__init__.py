"""Episodes and batches: T-Maze and Minari data, windows of segments, checks and statistics.

Gymnasium and Minari are imported when first used.
"""

from rate.data.collect import collect_tmaze, write_minari
from rate.data.episodes import Episode, EpisodeSource, InMemoryEpisodes, Recording, SpaceSpec
from rate.data.minari_source import MinariEpisodes
from rate.data.statistics import observation_statistics, return_statistics
from rate.data.tmaze import tmaze_episodes, tmaze_recordings
from rate.data.validate import check_episode
from rate.data.windows import SegmentBatch, SegmentWindows

__all__ = [
    "Episode",
    "EpisodeSource",
    "InMemoryEpisodes",
    "MinariEpisodes",
    "Recording",
    "SegmentBatch",
    "SegmentWindows",
    "SpaceSpec",
    "check_episode",
    "collect_tmaze",
    "observation_statistics",
    "return_statistics",
    "tmaze_episodes",
    "tmaze_recordings",
    "write_minari",
]
