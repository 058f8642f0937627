"""What is measured. A group makes comparisons from settings; it is imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import cast

from bench.runner import Comparison, Settings

GROUPS = {
    "ceilings": "what the device can do: a large copy, a large matrix product",
    "attention": "memory-token attention, forward and backward, with its peak memory",
    "gate": "the memory retention gate",
    "recurrence": "packing a segment, rolling the cache",
    "overhead": "the host's microseconds per call",
    "training-step": "forward, loss and backward of a whole model",
    "acting": "one environment step, from one environment to many",
    "long-episode": "one environment step at the beginning of an episode and 99,000 steps later",
    "memory-replay": "a training batch of many segments: seconds and memory, with and without memory replay",
    "tmaze": "training T-Maze to success 1.0, and success at longer corridors; takes many minutes",
}


def comparisons(name: str, settings: Settings) -> Iterable[Comparison]:
    """The comparisons of a group.

    Raises:
        ValueError: for an unknown group.
    """
    if name not in GROUPS:
        raise ValueError(f"group must be one of {', '.join(GROUPS)}, got {name!r}")
    module = importlib.import_module(f"bench.groups.{name.replace('-', '_')}")
    return cast("Iterable[Comparison]", module.comparisons(settings))
