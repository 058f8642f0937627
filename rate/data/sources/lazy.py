"""What all files of episodes have in common: episodes read when asked for, checked, and kept within a budget."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rate.data.episodes import Episode, Recording, SpaceSpec
from rate.data.sources.errors import reading
from rate.data.sources.spaces import agreed
from rate.data.validate import check_actions_and_rewards, check_episode

CACHE_BYTES = 1 << 30
"""Decoded episodes that a source keeps by default."""


@dataclass(frozen=True)
class Contents:
    """What is known of a set when it has been opened: int64 lengths ``[N]`` and the spaces found in it."""

    lengths: np.ndarray
    observation_space: SpaceSpec
    action_space: SpaceSpec


class LazyEpisodes(ABC):
    """Episodes of files as an :class:`rate.data.EpisodeSource`, decoded one at a time.

    The latest used are kept, so a set may be larger than memory. An episode is checked when it is asked for the first
    time. A source can be sent to other processes: files are opened for each read, what was decoded stays behind.

    Args:
        path: file or folder.
        limit: read only the first episodes, of at most this many steps together; None for all.
        observation_space: the environment's, where the files know less of it than it is (the number of discrete values,
            bounds); by default as found in the files.
        action_space: likewise. Without it discrete actions are counted up to the largest one in the files.
        cache_bytes: decoded episodes kept, in bytes; an episode larger than this is read each time.

    Attributes:
        layout: the layout's name.
        lengths: int64 ``[N]``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for files that are damaged or lack something, naming file and key; for no episodes; for a given
            space that what was found does not fit; for a negative ``cache_bytes`` or a ``limit`` below 1.
        TypeError: for observations or actions that are not supported.
    """

    layout: ClassVar[str]
    keys: tuple[str, str, str] = ("observations", "actions", "rewards")
    """What observations, actions and rewards are called in the files."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        limit: int | None = None,
        observation_space: SpaceSpec | None = None,
        action_space: SpaceSpec | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if cache_bytes < 0:
            raise ValueError(f"cache_bytes must not be negative, got {cache_bytes}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1 step, got {limit}")
        self.path = Path(path).expanduser()
        found = self._open(limit)
        if not len(found.lengths):
            raise ValueError(f"data set {self.path} must hold at least one episode, got 0")
        if found.lengths.min() < 1:
            empty = int(found.lengths.argmin())
            raise ValueError(f"{self.file(empty)}: episode {empty}: has no steps, expected at least one")
        self.lengths = _within(found.lengths, limit, self.path)
        self.observation_space = agreed(found.observation_space, observation_space, "observation", self.path)
        self.action_space = agreed(found.action_space, action_space, "action", self.path)
        self._checked = np.zeros(len(self.lengths), np.bool_)
        self._cache: OrderedDict[int, Episode] = OrderedDict()
        self._cache_bytes, self.cached_bytes = cache_bytes, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Episode:
        index = self._number(index)
        if index in self._cache:
            self._cache.move_to_end(index)
            episode = self._cache[index]
        else:
            with reading(self.file(index)):
                block = self._decode_block(index)
            episode = block[index]
            self._keep(index, block)
        if not self._checked[index]:
            self._check(index, episode)
        return episode

    def actions_and_rewards(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of an episode as :class:`rate.data.Episode` has them; its observations are not read."""
        index = self._number(index)
        if index in self._cache:
            return self._cache[index].actions, self._cache[index].rewards
        with reading(self.file(index)):
            actions, rewards = self._outline(index)
        with self._named(index):
            check_actions_and_rewards(actions, rewards, index, self.action_space, self.keys)
        return actions, rewards

    def recording(self, index: int) -> Recording:
        """The episode as its environment gave it, for :func:`rate.data.write_minari`.

        Where the files do not hold the observation after the last action, the last one stands in for it.
        """
        index = self._number(index)
        episode, (final, terminated, truncated) = self[index], self._ending(index)
        observations = np.concatenate([episode.observations, episode.observations[-1:]])
        if final is not None:
            observations[-1] = self.observation_space.convert(final[None])[0]
        if self.observation_space.channels_last:
            observations = np.moveaxis(observations, 1, -1)
        return Recording(observations, episode.actions, episode.rewards, terminated, truncated)

    def file(self, index: int) -> Path:
        """The file that holds an episode."""
        return self.path

    def files(self) -> list[Path]:
        """All files of the set."""
        return [self.path]

    def divide_cache(self, parts: int) -> None:
        """Keeps a ``parts``-th of what was to be kept, for processes that read side by side."""
        self._cache_bytes //= parts
        while self.cached_bytes > self._cache_bytes:
            self.cached_bytes -= self._size(self._cache.popitem(last=False)[1])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict(), "cached_bytes": 0}

    @abstractmethod
    def _open(self, limit: int | None) -> Contents:
        """Looks at the files. More episodes than ``limit`` asks for may be reported."""

    @property
    def remark(self) -> str:
        """What else there is to know of the set, in a few words; empty for nothing."""
        return ""

    @abstractmethod
    def _outline(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads an episode's actions and rewards, as :meth:`_decode` does."""

    @abstractmethod
    def _decode(self, index: int) -> Episode:
        """Reads an episode, whose conversion to its spaces is all that is done to it."""

    def _decode_block(self, index: int) -> dict[int, Episode]:
        """An episode, and any others that come with it where reading it alone would cost as much."""
        return {index: self._decode(index)}

    def _ending(self, index: int) -> tuple[np.ndarray | None, bool, bool]:
        """The observation after the last action if there is one, and whether the episode terminated or was cut."""
        return None, True, False

    def _size(self, episode: Episode) -> int:
        """Bytes of an episode in memory, with its returns-to-go."""
        return episode.nbytes + episode.rewards.nbytes

    def _keep(self, index: int, block: dict[int, Episode]) -> None:
        """Puts a block into the cache, of the others no more than half of it and the ones that follow first."""
        others = sorted(
            (number for number in block if number != index), key=lambda number: (number < index, number)
        )
        room, kept = self._cache_bytes // 2, []
        for number in others:
            room -= self._size(block[number])
            if room < 0:
                break
            if number not in self._cache:
                kept.append(number)
        for number in [*reversed(kept), index]:  # the one asked for is the one used latest
            size = self._size(block[number])
            if size <= self._cache_bytes:
                while self.cached_bytes + size > self._cache_bytes:
                    self.cached_bytes -= self._size(self._cache.popitem(last=False)[1])
                self._cache[number] = block[number]
                self.cached_bytes += size

    def _check(self, index: int, episode: Episode) -> None:
        with self._named(index):
            check_episode(episode, index, self.observation_space, self.action_space, self.keys)
            if episode.length != self.lengths[index]:
                raise ValueError(
                    f"episode {index}: has {episode.length} steps, expected {self.lengths[index]} as the set says"
                )
        self._checked[index] = True

    @contextmanager
    def _named(self, index: int) -> Iterator[None]:
        """Puts the file before what is wrong with an episode."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.file(index)}: {error}") from None

    def _number(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be 0 to {len(self) - 1}, got {index}")
        return int(index) % len(self)


def _within(lengths: np.ndarray, limit: int | None, path: Path) -> np.ndarray:
    """The first lengths, of at most ``limit`` steps together."""
    if limit is None:
        return lengths
    count = int(np.searchsorted(np.cumsum(lengths), limit, side="right"))
    if not count:
        raise ValueError(
            f"limit must be at least {lengths[0]}, the first episode's steps in {path}, got {limit}"
        )
    return lengths[:count]
