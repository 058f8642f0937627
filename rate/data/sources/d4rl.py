"""D4RL files: flat arrays over all steps of all episodes, in HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rate.data.episodes import Episode, SpaceSpec
from rate.data.sources.errors import check_keys, check_lengths, reading
from rate.data.sources.lazy import Contents, LazyEpisodes
from rate.data.sources.spaces import action_spec, observation_spec

MAX_EPISODE_STEPS = 1000
"""Where an episode ends in a file that does not say."""
_NEEDED = ("observations", "actions", "rewards", "terminals")
_ROWS = 1 << 16
_BLOCK_BYTES = 1 << 24
"""Observations read at once at most, where chunks are larger."""


class D4RLEpisodes(LazyEpisodes):
    """A D4RL HDF5 file, sliced by episode: ``observations``, ``actions``, ``rewards``, ``terminals``.

    An episode ends at a terminal or, in a file that has them, a timeout (``timeouts``); in a file without, after 1000
    steps. Steps after the last end are dropped. ``next_observations`` gives the observation after an episode's end.

    The arguments are explained at :class:`LazyEpisodes`, for all layouts.

    Attributes:
        dropped_steps: steps after the last end.
    """

    layout = "D4RL HDF5"

    def _open(self, limit: int | None) -> Contents:
        import h5py

        with reading(self.path), h5py.File(self.path, "r") as file:
            check_keys(self.path, file, _NEEDED)
            optional = [key for key in ("timeouts", "next_observations") if key in file]
            for key in (*_NEEDED, *optional):
                if not isinstance(file[key], h5py.Dataset) or not file[key].shape:
                    raise ValueError(f"{self.path}: {key} must be an array of steps, got {file[key]}")
            rows = {key: len(file[key]) for key in (*optional, *_NEEDED)}
            check_lengths(str(self.path), rows)
            terminals = flags(file["terminals"][()], "terminals", self.path)
            timeouts = flags(file["timeouts"][()], "timeouts", self.path) if "timeouts" in file else None
            spaces = self._observations(file["observations"]), self._actions(file["actions"])
            self._chunk = (file["observations"].chunks or (0,))[0]
            self._row_bytes = file["observations"].nbytes // max(rows["observations"], 1)
        self._terminals, self._has_final = terminals, "next_observations" in optional
        self._stops = episode_ends(terminals, timeouts)
        if not len(self._stops):
            raise ValueError(
                f"{self.path}: terminals and timeouts end no episode within {len(terminals)} steps, "
                "expected at least one"
            )
        self._starts = np.concatenate([[0], self._stops[:-1]])
        self.dropped_steps = len(terminals) - int(self._stops[-1])
        return Contents(self._stops - self._starts, *spaces)

    def _outline(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        actions, rewards = self._slices(index, index + 1, "actions", "rewards")
        return self.action_space.convert(actions), _column(rewards).astype(np.float32)

    @property
    def remark(self) -> str:
        return f"{self.dropped_steps:,} steps after the last end are dropped" if self.dropped_steps else ""

    def _decode(self, index: int) -> Episode:
        return self._episode(self._slices(index, index + 1, "observations", "actions", "rewards"))

    def _decode_block(self, index: int) -> dict[int, Episode]:
        """The episodes that begin in the same HDF5 chunk, which is decompressed as a whole for each of them."""
        row = int(self._starts[index])
        rows = min(self._chunk, min(_BLOCK_BYTES, self._cache_bytes // 2) // max(self._row_bytes, 1))
        if rows < 2:
            return super()._decode_block(index)
        begin = row // self._chunk * self._chunk
        begin += (row - begin) // rows * rows
        first, last = np.searchsorted(self._starts[: len(self)], (begin, begin + rows)).tolist()
        parts = self._slices(first, last, "observations", "actions", "rewards")
        base = int(self._starts[first])
        return {
            number: self._episode(
                [part[self._starts[number] - base : self._stops[number] - base] for part in parts]
            )
            for number in range(first, last)
        }

    def _episode(self, parts: list[np.ndarray]) -> Episode:
        observations, actions, rewards = parts
        # Copies: a view would keep the whole block in memory.
        return Episode(
            self.observation_space.convert(np.array(observations)),
            self.action_space.convert(np.array(actions)),
            _column(rewards).astype(np.float32),
        )

    def _ending(self, index: int) -> tuple[np.ndarray | None, bool, bool]:
        last = int(self._stops[index]) - 1
        terminated = bool(self._terminals[last])
        final = None
        if self._has_final:
            import h5py

            with reading(self.path), h5py.File(self.path, "r") as file:
                final = file["next_observations"][last]
        return final, terminated, not terminated

    def _slices(self, first: int, last: int, *keys: str) -> list[np.ndarray]:
        """The rows of the episodes from ``first`` to before ``last``."""
        # The file is opened for each read: an HDF5 handle must not live through a fork.
        import h5py

        part = slice(int(self._starts[first]), int(self._stops[last - 1]))
        with h5py.File(self.path, "r") as file:
            return [file[key][part] for key in keys]

    def _observations(self, stored: Any) -> SpaceSpec:
        low, high = _bounds(stored) if stored.ndim == 1 else (0.0, 0.0)
        spec = observation_spec(stored.shape[1:], stored.dtype, low, high)
        if spec is None:
            raise TypeError(
                f"{self.path}: observations are {list(stored.shape)} {stored.dtype}, "
                "expected [N, size] numbers, [N] integers or images of uint8"
            )
        return spec

    def _actions(self, stored: Any) -> SpaceSpec:
        spec = action_spec(stored.shape[1:], stored.dtype, *_bounds(stored))
        if spec is None:
            raise TypeError(
                f"{self.path}: actions are {list(stored.shape)} {stored.dtype}, "
                "expected [N, size] numbers or [N] integers"
            )
        return spec


def episode_ends(terminals: np.ndarray, timeouts: np.ndarray | None) -> np.ndarray:
    """The row after each episode's last, int64, for flags bool ``[N]``; timeouts None where the file has none."""
    if timeouts is not None:
        return np.flatnonzero(terminals | timeouts) + 1
    stops: list[int] = []
    start = 0
    for end in (np.flatnonzero(terminals) + 1).tolist():
        stops += [*range(start + MAX_EPISODE_STEPS, end, MAX_EPISODE_STEPS), end]
        start = end
    stops += range(start + MAX_EPISODE_STEPS, len(terminals) + 1, MAX_EPISODE_STEPS)
    return np.array(stops, dtype=np.int64)


def flags(values: np.ndarray, key: str, path: Path) -> np.ndarray:
    """Bool ``[N]`` from booleans or the numbers 0 and 1.

    Raises:
        ValueError: for anything else.
    """
    values = _column(values)
    if values.ndim != 1 or values.dtype.kind not in "iubf" or not np.isin(values, (0, 1)).all():
        raise ValueError(f"{path}: {key} must be [N] of 0 and 1, got {list(values.shape)} {values.dtype}")
    return values.astype(np.bool_)


def _column(values: np.ndarray) -> np.ndarray:
    """``[N, 1]`` as ``[N]``."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _bounds(stored: Any) -> tuple[float, float]:
    """Smallest and largest finite number, read in parts."""
    low, high = np.inf, -np.inf
    if stored.dtype.kind in "iubf":
        for start in range(0, len(stored), _ROWS):
            part = stored[start : start + _ROWS]
            part = part[np.isfinite(part)]
            if part.size:
                low, high = min(low, part.min()), max(high, part.max())
    return (float(low), float(high)) if low <= high else (0.0, 0.0)
