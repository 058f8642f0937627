"""Minari data sets on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from rate.data.episodes import Episode, Recording, SpaceSpec
from rate.data.sources.errors import reading
from rate.data.sources.lazy import Contents, LazyEpisodes


class MinariEpisodes(LazyEpisodes):
    """A Minari data set; nothing is downloaded.

    Args:
        path: the set's folder, its ``data`` folder, or its id (``namespace/name-v0``) below
            ``$MINARI_DATASETS_PATH`` or ``~/.minari/datasets``. A folder that holds a set comes first.

    The rest is explained at :class:`LazyEpisodes`, for all layouts.
    """

    layout = "Minari"

    def _open(self, limit: int | None) -> Contents:
        import minari

        self.path = find_data_folder(self.path)
        with reading(self.path):
            self.dataset = minari.MinariDataset(self.path)
            details = list(self.dataset.storage.get_episode_metadata(self.dataset.episode_indices))
        return Contents(
            np.array([int(detail["total_steps"]) for detail in details], dtype=np.int64),
            SpaceSpec.from_space(self.dataset.observation_space, "observation"),
            SpaceSpec.from_space(self.dataset.action_space, "action"),
        )

    def recover_environment(self, **kwargs: Any) -> Any:
        """The Gymnasium environment the set was collected in. Raises ValueError if the set does not say."""
        return self.dataset.recover_environment(**kwargs)

    def _outline(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        file = self.path / "main_data.hdf5"
        if not file.is_file():  # other storages read whole episodes
            episode = self[index]
            return episode.actions, episode.rewards
        import h5py

        with h5py.File(file, "r") as stored:
            group = stored[f"episode_{self.dataset.episode_indices[index]}"]
            actions, rewards = group["actions"][()], group["rewards"][()]
        return self.action_space.convert(actions), np.asarray(rewards, np.float32)

    def files(self) -> list[Path]:
        return sorted(path for path in self.path.rglob("*") if path.is_file())

    def _decode(self, index: int) -> Episode:
        stored = self.dataset[index]
        observations, actions = np.asarray(stored.observations), np.asarray(stored.actions)
        recording = Recording(observations, actions, np.asarray(stored.rewards))
        return recording.episode(self.observation_space, self.action_space)

    def _ending(self, index: int) -> tuple[np.ndarray | None, bool, bool]:
        stored = self.dataset[index]
        final = (
            np.asarray(stored.observations)[-1] if len(stored.observations) > len(stored.rewards) else None
        )
        return final, bool(stored.terminations[-1]), bool(stored.truncations[-1])


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
