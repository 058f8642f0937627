"""The published T-Maze pickles: a dict from 0, 1, 2, ... to episodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from rate.data.episodes import Episode
from rate.data.sources.d4rl import flags
from rate.data.sources.errors import check_keys, check_lengths
from rate.data.sources.lazy import Contents, LazyEpisodes
from rate.data.sources.spaces import common_action_spec, common_observation_spec
from rate.data.sources.unpickle import load_pickle


class TMazePickleEpisodes(LazyEpisodes):
    """A pickle of the published RATE code for T-Maze (and associative retrieval).

    Per episode of T steps ``obs`` ``[T + 1, size]``, ``action`` ``[T]``, ``rtg`` ``[T + 1]`` and ``done`` ``[T]``.
    Rewards are the differences of ``rtg``, which starts at the return wanted: of a failed episode it never comes down
    to 0, so returns-to-go are summed up anew.

    The arguments are explained at :class:`LazyEpisodes`, for all layouts.
    """

    layout = "RATE pickle"
    keys = ("obs", "action", "rtg")

    def _open(self, limit: int | None) -> Contents:
        loaded = load_pickle(self.path)
        if not isinstance(loaded, dict) or sorted(loaded, key=str) != sorted(range(len(loaded)), key=str):
            raise ValueError(f"{self.path}: must be a dict of episodes 0, 1, 2, ..., got {_summary(loaded)}")
        if not loaded:
            raise ValueError(f"data set {self.path} must hold at least one episode, got 0")
        self._episodes = [self._checked_arrays(index, loaded[index]) for index in range(len(loaded))]
        where = [f"{self.path}: episode {index}" for index in range(len(loaded))]
        return Contents(
            np.array([len(episode["action"]) for episode in self._episodes], dtype=np.int64),
            common_observation_spec(
                [(e["obs"], w) for e, w in zip(self._episodes, where, strict=True)], "obs"
            ),
            common_action_spec(
                [(e["action"], w) for e, w in zip(self._episodes, where, strict=True)], "action"
            ),
        )

    def _outline(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        episode = self._episodes[index]
        return self.action_space.convert(episode["action"]), _rewards(episode["rtg"])

    def _decode(self, index: int) -> Episode:
        episode = self._episodes[index]
        return Episode(
            self.observation_space.convert(episode["obs"][:-1]),
            self.action_space.convert(episode["action"]),
            _rewards(episode["rtg"]),
        )

    def _ending(self, index: int) -> tuple[np.ndarray | None, bool, bool]:
        episode = self._episodes[index]
        terminated = bool(episode["done"][-1])
        return episode["obs"][-1], terminated, not terminated

    def _checked_arrays(self, index: int, episode: Any) -> dict[str, np.ndarray]:
        where = f"{self.path}: episode {index}"
        if not isinstance(episode, dict):
            raise ValueError(f"{where}: must be a dict of arrays, got {type(episode).__name__}")
        needed = ("obs", "rtg", "done", "action")
        check_keys(self.path, map(str, episode), needed)
        for key in needed:
            if not isinstance(episode[key], np.ndarray) or not episode[key].ndim:
                raise ValueError(f"{where}: {key} must be an array, got {type(episode[key]).__name__}")
        for key in ("obs", "rtg"):
            if len(episode[key]) != len(episode["action"]) + 1:
                raise ValueError(
                    f"{where}: {key} holds {len(episode[key])} rows, expected {len(episode['action']) + 1}: "
                    "one more than action"
                )
        check_lengths(where, {key: len(episode[key]) for key in ("done", "action")})
        flags(episode["done"], f"episode {index}: done", self.path)
        return {key: episode[key] for key in needed}


def _rewards(returns_to_go: np.ndarray) -> np.ndarray:
    return (returns_to_go[:-1] - returns_to_go[1:]).astype(np.float32)


def _summary(loaded: Any) -> str:
    if isinstance(loaded, dict):
        return f"a dict with the keys {', '.join(map(str, list(loaded)[:5]))}" if loaded else "an empty dict"
    return type(loaded).__name__
