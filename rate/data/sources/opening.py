"""One way to open a data set, whatever its layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rate.data.sources.d4rl import D4RLEpisodes
from rate.data.sources.dqn_replay import DqnReplayEpisodes, chunk_numbers
from rate.data.sources.episode_npz import NpzEpisodes, episode_files
from rate.data.sources.gym_pickle import GymPickleEpisodes
from rate.data.sources.lazy import LazyEpisodes
from rate.data.sources.minari import MinariEpisodes, find_data_folder
from rate.data.sources.tmaze_pickle import TMazePickleEpisodes
from rate.data.sources.unpickle import first_opcode

_HDF5 = b"\x89HDF\r\n\x1a\n"
_FILES = (".hdf5", ".h5", ".pkl", ".pickle")


@dataclass(frozen=True)
class _Layout:
    """A layout's reader, and a test of a path: None if it fits, else what is missing."""

    source: type[LazyEpisodes]
    misfit: Callable[[Path], str | None]


def _minari(path: Path) -> str | None:
    if path.name == "main_data.hdf5":  # the file in the set's folder
        path = path.parent
    try:
        find_data_folder(path.absolute())  # not an id of the same name
    except FileNotFoundError:
        return "no metadata.json with main_data.hdf5"
    return None


def _hdf5(path: Path) -> str | None:
    if not path.is_file():
        return "not a file"
    with open(path, "rb") as file:
        return None if file.read(len(_HDF5)) == _HDF5 else "not HDF5"


def _pickle_of(opcodes: tuple[str, ...], what: str) -> Callable[[Path], str | None]:
    def misfit(path: Path) -> str | None:
        if not path.is_file():
            return "not a file"
        first = first_opcode(path)
        if first is None:
            return "not a pickle"
        return None if first in opcodes else f"a pickle, but not of a {what}"

    return misfit


def _dqn_replay(path: Path) -> str | None:
    places = (path, path / "replay_logs", path / "1" / "replay_logs")
    return None if any(map(chunk_numbers, places)) else "no $store$_action_ckpt.N.gz"


def _npz(path: Path) -> str | None:
    if path.is_file():
        with open(path, "rb") as file:
            return None if file.read(2) == b"PK" else "not an archive"
    return None if episode_files(path) else "no .npz files"


_LAYOUTS = (
    _Layout(MinariEpisodes, _minari),
    _Layout(D4RLEpisodes, _hdf5),
    _Layout(GymPickleEpisodes, _pickle_of(("EMPTY_LIST", "LIST"), "list")),
    _Layout(TMazePickleEpisodes, _pickle_of(("EMPTY_DICT", "DICT"), "dict")),
    _Layout(DqnReplayEpisodes, _dqn_replay),
    _Layout(NpzEpisodes, _npz),
)


def open_source(path_or_id: str | os.PathLike[str], **options: Any) -> LazyEpisodes:
    """Opens a data set of any layout that is known, told apart by what its files hold.

    Args:
        path_or_id: a file; a folder, also one with a single HDF5 file or pickle that is a data set; or the id of a
            Minari data set.
        options: of :class:`LazyEpisodes` and the layout's own class.

    Raises:
        FileNotFoundError: if there is neither such a path nor such a Minari data set.
        ValueError: if the layout is not recognised, saying for each why not; and as the layout's class does.
    """
    path = Path(path_or_id).expanduser()
    if not path.exists():
        try:
            return MinariEpisodes(find_data_folder(path_or_id), **options)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path} is neither a file nor a folder, and {error}") from None
    found, misfits = _recognise(path)
    if found is None and path.is_dir():
        inside = sorted(entry for entry in path.iterdir() if entry.suffix in _FILES and entry.is_file())
        if len(inside) > 1:
            names = ", ".join(entry.name for entry in inside[:10])
            raise ValueError(f"{path} holds {len(inside)} data sets, name one of them: {names}")
        if inside:
            path = inside[0]
            found, misfits = _recognise(path)
    if found is None:
        tried = "; ".join(f"{name}: {misfit}" for name, misfit in misfits.items())
        raise ValueError(f"{path} has no layout that is known. {tried}{_folders(path)}")
    if found is MinariEpisodes and path.is_file():
        path = path.parent
    return found(path, **options)


def _recognise(path: Path) -> tuple[type[LazyEpisodes] | None, dict[str, str]]:
    """The layout's class, or why it is none of them."""
    misfits = {}
    for layout in _LAYOUTS:
        misfit = layout.misfit(path)
        if misfit is None:
            return layout.source, {}
        misfits[layout.source.layout] = misfit
    return None, misfits


def _folders(path: Path) -> str:
    """A hint where data sets may be, deeper."""
    if not path.is_dir():
        return ""
    inside = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    return f". It holds the folders {', '.join(inside[:10])}: is it one of them?" if inside else ""
