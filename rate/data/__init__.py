"""Episodes and batches: data sets in many layouts, windows of segments, checks and statistics.

Gymnasium and Minari are imported when first used.
"""

from rate.data.collection import Collection, collect
from rate.data.episodes import Episode, EpisodeSource, InMemoryEpisodes, Recording, SpaceSpec
from rate.data.loader import sampled_batches
from rate.data.minari_writer import collect_tmaze, write_minari
from rate.data.sources import LazyEpisodes, MinariEpisodes, open_source
from rate.data.statistics import observation_statistics, return_statistics
from rate.data.tmaze import tmaze_episodes, tmaze_recordings
from rate.data.validate import check_episode
from rate.data.windows import SegmentBatch, SegmentWindows

__all__ = [
    "Collection",
    "Episode",
    "EpisodeSource",
    "InMemoryEpisodes",
    "LazyEpisodes",
    "MinariEpisodes",
    "Recording",
    "SegmentBatch",
    "SegmentWindows",
    "SpaceSpec",
    "check_episode",
    "collect",
    "collect_tmaze",
    "observation_statistics",
    "open_source",
    "return_statistics",
    "sampled_batches",
    "tmaze_episodes",
    "tmaze_recordings",
    "write_minari",
]
