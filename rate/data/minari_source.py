"""Episodes of a local Minari data set, read when they are asked for."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from rate.data.episodes import Episode, Recording, SpaceSpec
from rate.data.validate import check_episode


class MinariEpisodes:
    """A Minari data set on this machine as an :class:`rate.data.EpisodeSource`; nothing is downloaded.

    Episodes are decoded one at a time and the latest used are kept, so a set may be larger than memory. An
    episode is checked when it is decoded for the first time.

    Args:
        path_or_id: the set's folder, its ``data`` folder, or its id (``namespace/name-v0``) below
            ``$MINARI_DATASETS_PATH`` or ``~/.minari/datasets``. A folder that holds a set comes first.
        cache_bytes: decoded episodes kept, in bytes; an episode larger than this is read each time.

    Raises:
        FileNotFoundError: if there is no such set.
        ValueError: for a set without episodes, a negative ``cache_bytes``, or an unsupported Minari version.
        TypeError: for spaces that are not supported.
    """

    def __init__(self, path_or_id: str | os.PathLike[str], cache_bytes: int = 1 << 30) -> None:
        if cache_bytes < 0:
            raise ValueError(f"cache_bytes must not be negative, got {cache_bytes}")
        import minari

        self.path = find_data_folder(path_or_id)
        self.dataset = minari.MinariDataset(self.path)
        self.observation_space = SpaceSpec.from_space(self.dataset.observation_space, "observation")
        self.action_space = SpaceSpec.from_space(self.dataset.action_space, "action")
        if not len(self.dataset):
            raise ValueError(f"data set {self.path} must hold at least one episode, got 0")
        details = self.dataset.storage.get_episode_metadata(self.dataset.episode_indices)
        self.lengths = np.array([int(detail["total_steps"]) for detail in details], dtype=np.int64)
        if self.lengths.min() < 1:
            raise ValueError(f"episode {int(self.lengths.argmin())}: has no steps, expected at least one")
        self._checked = np.zeros(len(self.lengths), np.bool_)
        self._cache: OrderedDict[int, Episode] = OrderedDict()
        self._cache_bytes, self.cached_bytes = cache_bytes, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Episode:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be 0 to {len(self) - 1}, got {index}")
        index = int(index) % len(self)
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        episode = self._decode(index)
        size = _size(episode)
        if size <= self._cache_bytes:
            while self.cached_bytes + size > self._cache_bytes:
                self.cached_bytes -= _size(self._cache.popitem(last=False)[1])
            self._cache[index] = episode
            self.cached_bytes += size
        return episode

    def recover_environment(self, **kwargs: Any) -> Any:
        """The Gymnasium environment the set was collected in. Raises ValueError if the set does not say."""
        return self.dataset.recover_environment(**kwargs)

    def _decode(self, index: int) -> Episode:
        stored = self.dataset[index]
        observations, actions = np.asarray(stored.observations), np.asarray(stored.actions)
        recording = Recording(observations, actions, np.asarray(stored.rewards))
        episode = recording.episode(self.observation_space, self.action_space)
        if not self._checked[index]:
            check_episode(episode, index, self.observation_space, self.action_space)
            expected = int(self.lengths[index])
            if episode.length != expected:
                raise ValueError(
                    f"episode {index}: has {episode.length} steps, expected {expected} from its metadata"
                )
            self._checked[index] = True
        return episode


def find_data_folder(path_or_id: str | os.PathLike[str]) -> Path:
    """The ``data`` folder of a local Minari data set.

    Raises:
        FileNotFoundError: naming the places looked at.
    """
    from minari.storage import get_dataset_path

    folder = Path(path_or_id).expanduser()
    candidates = [folder, folder / "data"]
    if not folder.is_absolute():
        candidates.append(get_dataset_path(os.fspath(path_or_id)) / "data")
    for candidate in candidates:
        if (candidate / "metadata.json").is_file() and _has_data(candidate):
            return candidate
    places = ", ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(
        f"no Minari data set {str(path_or_id)!r}: looked for metadata.json and main_data.hdf5 in {places}"
    )


def _has_data(folder: Path) -> bool:
    """HDF5 sets keep one file; others (Arrow) a folder per episode."""
    return (folder / "main_data.hdf5").is_file() or any(entry.is_dir() for entry in folder.iterdir())


def _size(episode: Episode) -> int:
    """Bytes of an episode with its returns-to-go."""
    return episode.nbytes + episode.rewards.nbytes
