"""Episodes kept while a collection is running, so that an interrupted one can go on."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rate.data.episodes import Recording
from rate.data.recording import Played
from rate.persistence import write_atomically, write_text

_BYTES = 64 << 20
_SECONDS = 10.0


class Parts:
    """A folder of files, each with some episodes in the order of their numbers, and what they are episodes of.

    Episodes gathered are written when they make 64 MiB or ten seconds have passed, and by :meth:`flush`: a file is
    there whole or not at all, so whatever ends the process costs at most what was gathered since.

    Args:
        folder: made by the first episode written.
        about: what is collected and how, as JSON can hold it.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self._gathered: list[Played] = []
        self._bytes = 0
        self._since = time.monotonic()
        self._files = sorted(folder.glob("part-*.npz"))
        self.count = sum(_count(file) for file in self._files)

    def check(self) -> None:
        """Raises ValueError if what is in the folder was collected differently, naming the first difference."""
        file = self.folder / "collection.json"
        if not file.is_file():
            return
        before = json.loads(file.read_text())
        for name, value in json.loads(json.dumps(self.about)).items():
            if before.get(name) != value:
                raise ValueError(
                    f"{name} must be {before.get(name)!r} as in the interrupted collection at {self.folder}, "
                    f"got {value!r}"
                )

    def add(self, played: Played) -> None:
        """Gathers the next episode."""
        self._gathered.append(played)
        self.count += 1
        self._bytes += played.recording.observations.nbytes
        if self._bytes > _BYTES or time.monotonic() - self._since > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what was gathered."""
        self._since = time.monotonic()
        if not self._gathered:
            return
        if not self._files:
            write_text(self.folder / "collection.json", json.dumps(self.about, indent=2) + "\n")
        file = self.folder / f"part-{self.count - len(self._gathered):07d}.npz"
        arrays = {name: array for i, one in enumerate(self._gathered) for name, array in _arrays(i, one)}
        write_atomically(file, lambda beside: _save(beside, arrays))
        self._files.append(file)
        self._gathered, self._bytes = [], 0

    def __iter__(self) -> Iterator[Played]:
        """All episodes written, in order."""
        index = 0
        for file in self._files:
            with np.load(file) as arrays:
                for i in range(_count(file)):
                    yield _played(index, i, arrays)
                    index += 1

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._files, self._gathered, self.count = [], [], 0


def _arrays(i: int, one: Played) -> Iterator[tuple[str, np.ndarray]]:
    recording = one.recording
    yield f"observations_{i}", recording.observations
    yield f"actions_{i}", recording.actions
    yield f"rewards_{i}", np.asarray(recording.rewards)
    success = -1 if one.success is None else int(one.success)
    yield f"end_{i}", np.array([recording.terminated, recording.truncated, success], np.int8)


def _played(index: int, i: int, arrays: Any) -> Played:
    terminated, truncated, success = arrays[f"end_{i}"].tolist()
    recording = Recording(
        arrays[f"observations_{i}"],
        arrays[f"actions_{i}"],
        arrays[f"rewards_{i}"],
        terminated=bool(terminated),
        truncated=bool(truncated),
    )
    return Played(index, recording, None if success < 0 else bool(success))


def _count(file: Path) -> int:
    with zipfile.ZipFile(file) as archive:
        return sum(name.startswith("end_") for name in archive.namelist())


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As ``numpy.savez_compressed``, at the fastest level: images shrink much, and a collection must not wait."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
