"""The DQN replay data sets for Atari: a replay buffer in chunks of up to a million single frames."""

from __future__ import annotations

import gzip
import math
import os
import re
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rate.data.episodes import Episode, SpaceSpec
from rate.data.sources.d4rl import flags
from rate.data.sources.errors import check_lengths, reading
from rate.data.sources.lazy import Contents, LazyEpisodes
from rate.data.sources.npy import ArrayStream
from rate.data.sources.spaces import common_action_spec

DEFAULT_LIMIT = 500_000
"""Steps read where no other number is given: the paper's share of the 50 million of a game."""
_BLOCK = 1024
"""Frames decompressed at once."""
_DOPAMINE_PADDING = 3
"""Zero rows that Dopamine puts before an episode's first frame, one less than its stack of 4."""


class DqnReplayEpisodes(LazyEpisodes):
    """A ``replay_logs`` folder of the DQN replay data sets, without Dopamine and TensorFlow.

    A chunk N is ``$store$_observation_ckpt.N.gz`` with frames uint8 ``[rows, 84, 84]`` and likewise ``action``,
    ``reward`` and ``terminal``, each one array that ``numpy.save`` wrote, compressed. An observation is the latest
    ``stack`` frames, oldest first, zeros before an episode's start; the zero rows with which Dopamine begins an episode
    are left out. Rows after a chunk's last terminal are dropped, and rows that were old when it was written
    (``add_count`` tells).

    Compressed files can only be read from their start, so the frames needed are decompressed once, when the set is
    opened, to a temporary file of 7 KB a step in ``$TMPDIR``, which is mapped, not loaded, and removed with the source.
    Stacks are views of it.

    Args:
        path: the ``replay_logs`` folder, or the game's folder above it.
        limit: steps (rows) read. Every chunk gives the same number of its first rows, so early and late play are there.
        stack: frames in an observation.

    The rest is explained at :class:`LazyEpisodes`, for all layouts.
    """

    layout = "Atari DQN replay"
    keys = ("observation", "action", "reward")

    def __init__(
        self, path: str | os.PathLike[str], *, limit: int | None = None, stack: int = 4, **options: Any
    ) -> None:
        if stack < 1:
            raise ValueError(f"stack must be at least 1, got {stack}")
        self._stack = stack
        super().__init__(path, limit=DEFAULT_LIMIT if limit is None else limit, **options)

    def _open(self, limit: int | None) -> Contents:
        self.path = find_logs(self.path)
        self._chunks = chunk_numbers(self.path)
        self._share = share = math.ceil((limit or DEFAULT_LIMIT) / len(self._chunks))
        columns = [self._read_columns(chunk, share) for chunk in self._chunks]
        stops = [np.flatnonzero(terminal) + 1 for _, _, terminal in columns]
        if not any(map(len, stops)):
            raise ValueError(
                f"{self.path}: terminal ends no episode within the first {share} rows of its {len(self._chunks)} "
                "chunks: raise the limit"
            )
        frames = self._frame_shapes(columns)
        wanted = sum(int(ends[-1]) + (self._stack - 1) * len(ends) for ends in stops if len(ends))
        self._frames_file = _temporary_file(wanted * math.prod(frames))
        weakref.finalize(self, _remove, self._frames_file, os.getpid())
        self._outlines: list[tuple[np.ndarray, np.ndarray]] = []
        self._starts: list[int] = []
        with (
            open(self._frames_file, "wb") as out,
            tqdm(total=wanted, unit="frame", delay=3, leave=False) as bar,
        ):
            for chunk, found, ends in zip(self._chunks, columns, stops, strict=True):
                if len(ends):
                    self._unpack(chunk, found, ends, out, bar)
            self._frames_shape = (out.tell() // math.prod(frames), *frames)
        self._frames: np.ndarray | None = None
        named = [(actions, str(self.path)) for actions, _ in self._outlines]
        return Contents(
            np.array([len(rewards) for _, rewards in self._outlines], dtype=np.int64),
            SpaceSpec("image", (self._stack, *frames), low=0.0, high=255.0),
            common_action_spec(named, "action"),
        )

    def _outline(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        actions, rewards = self._outlines[index]
        return self.action_space.convert(actions), rewards

    def files(self) -> list[Path]:
        return [self._file(key, chunk) for chunk in self._chunks for key in (*self.keys, "terminal")]

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_frames": None}

    @property
    def remark(self) -> str:
        return f"whole episodes of the first {self._share:,} rows of each of {len(self._chunks)} chunks"

    def _decode(self, index: int) -> Episode:
        if self._frames is None:
            self._frames = np.memmap(self._frames_file, np.uint8, "r", shape=self._frames_shape)
        actions, rewards = self._outlines[index]
        start = self._starts[index]
        part = self._frames[start : start + len(rewards) + self._stack - 1]
        stacks = np.lib.stride_tricks.sliding_window_view(part, self._stack, axis=0)
        return Episode(np.moveaxis(stacks, -1, 1), self.action_space.convert(actions), rewards)

    def _size(self, episode: Episode) -> int:
        # Frames are mapped from the file: the system keeps as many as it has room for.
        return episode.actions.nbytes + 2 * episode.rewards.nbytes

    def _read_columns(self, chunk: int, share: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Actions, rewards and terminals of the first rows of a chunk."""
        columns, lengths = {}, {}
        for key in ("action", "reward", "terminal"):
            path = self._file(key, chunk)
            with reading(path), gzip.open(path, "rb") as file:
                stream = ArrayStream(file, str(path))
                if len(stream.shape) != 1 or stream.dtype.kind not in ("iubf" if key == "reward" else "iub"):
                    kind = "numbers" if key == "reward" else "integers"
                    raise ValueError(f"{path} is {list(stream.shape)} {stream.dtype}, expected [rows] {kind}")
                columns[key], lengths[key] = stream.rows(share), stream.shape[0]
        check_lengths(f"{self.path}: chunk {chunk}", lengths)
        fresh = self._fresh_rows(chunk, lengths["action"])
        terminals = flags(columns["terminal"][:fresh], "terminal", self._file("terminal", chunk))
        return (
            columns["action"][:fresh].astype(np.int64),
            columns["reward"][:fresh].astype(np.float32),
            terminals,
        )

    def _fresh_rows(self, chunk: int, rows: int) -> int:
        """Rows written since the chunk before: the buffer is ring-shaped and is saved when its next row is its last."""
        path = self.path / f"add_count_ckpt.{chunk}.gz"
        if not path.is_file() or not rows:
            return rows
        with reading(path), gzip.open(path, "rb") as file:
            count = ArrayStream(file, str(path)).array()
        if count.shape or count.dtype.kind not in "iu":
            raise ValueError(f"{path} is {list(count.shape)} {count.dtype}, expected one integer")
        return int(count) % rows or rows

    def _frame_shapes(self, columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[int, int]:
        """Height and width of a frame, the same in all chunks."""
        first: tuple[int, int] | None = None
        for chunk, (actions, _, _) in zip(self._chunks, columns, strict=True):
            path = self._file("observation", chunk)
            with reading(path), gzip.open(path, "rb") as file:
                stream = ArrayStream(file, str(path))
            expected = first or stream.shape[1:]
            if len(expected) != 2 or stream.dtype != np.uint8 or stream.shape[1:] != expected:
                size = ", ".join(map(str, first or ("height", "width")))
                raise ValueError(
                    f"{path} is {list(stream.shape)} {stream.dtype}, expected [rows, {size}] uint8"
                )
            if stream.shape[0] < len(actions):
                raise ValueError(
                    f"{path} holds {stream.shape[0]} rows, expected {len(actions)} as action does"
                )
            first = expected
        assert first is not None
        return first

    def _unpack(
        self,
        chunk: int,
        columns: tuple[np.ndarray, np.ndarray, np.ndarray],
        stops: np.ndarray,
        out: Any,
        bar: Any,
    ) -> None:
        """Writes a chunk's frames up to its last terminal, with zeros before each episode, and notes its episodes."""
        actions, rewards, _ = columns
        path = self._file("observation", chunk)
        kept = np.ones(int(stops[-1]), np.bool_)
        begins, row, padding = {0, *stops[:-1].tolist()}, 0, 0
        starts, firsts = [], []
        with reading(path), gzip.open(path, "rb") as file:
            for block in ArrayStream(file, str(path)).blocks(len(kept), _BLOCK):
                for frame in block:
                    if row in begins:
                        starts.append(out.tell() // frame.size)
                        firsts.append(row)
                        out.write(bytes((self._stack - 1) * frame.size))
                        padding = _DOPAMINE_PADDING
                    if padding and not (actions[row] or rewards[row] or frame.any()):
                        kept[row] = False
                        padding -= 1
                    else:
                        out.write(frame)
                        padding = 0
                    row += 1
                bar.update(len(block))
        for start, first, stop in zip(starts, firsts, stops.tolist(), strict=True):
            rows = np.flatnonzero(kept[first:stop]) + first
            if len(rows):
                self._starts.append(start)
                self._outlines.append((actions[rows], rewards[rows]))

    def _file(self, key: str, chunk: int) -> Path:
        return self.path / f"$store$_{key}_ckpt.{chunk}.gz"


def find_logs(path: Path) -> Path:
    """The folder of chunks: the path itself, ``replay_logs`` in it, or in its folder ``1``.

    Raises:
        FileNotFoundError: naming the places looked at.
    """
    places = (path, path / "replay_logs", path / "1" / "replay_logs")
    for place in places:
        if chunk_numbers(place):
            return place
    raise FileNotFoundError(
        f"no chunks $store$_action_ckpt.N.gz in {', '.join(map(str, places))}, expected those of a DQN replay"
    )


def chunk_numbers(folder: Path) -> list[int]:
    """Numbers of the chunks in a folder, ascending."""
    found = (
        re.fullmatch(r"\$store\$_action_ckpt\.(\d+)\.gz", path.name)
        for path in folder.glob("$store$_action*")
    )
    return sorted(int(match[1]) for match in found if match)


def _temporary_file(size: int) -> Path:
    """An empty file where ``size`` bytes fit.

    Raises:
        OSError: if they do not.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(
            f"frames need {size / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB free: "
            "lower the limit, or set TMPDIR"
        )
    handle, name = tempfile.mkstemp(prefix="rate-frames-", suffix=".u8", dir=folder)
    os.close(handle)
    return Path(name)


def _remove(path: Path, owner: int) -> None:
    """Only the process that made the file removes it, not one that was forked from it."""
    if os.getpid() == owner:
        path.unlink(missing_ok=True)
