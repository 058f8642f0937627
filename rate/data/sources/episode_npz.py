"""The published episodes for POPGym, Minigrid-Memory, ViZDoom and Memory Maze: a numpy archive each."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rate.data.episodes import Episode, SpaceSpec
from rate.data.sources.errors import check_keys, check_lengths, per_step, reading
from rate.data.sources.lazy import Contents, LazyEpisodes
from rate.data.sources.npy import ArrayStream
from rate.data.sources.spaces import common_action_spec, observation_spec

_LARGEST_VECTOR = 10_000
Coding = Literal["plain", "board", "one_hot"]


@dataclass(frozen=True)
class _Layout:
    """How the archives of a folder are written, as the first of them shows.

    Args:
        observation: key of the observations.
        shape: of one observation as stored.
        dtype: of the observations as stored.
        coding: of actions: as they are, as row and column of a board, or one-hot.
        action_shape: of one action as stored.
        led: a row holds the action and reward that led to its observation, not those that follow it.
    """

    observation: str
    shape: tuple[int, ...]
    dtype: np.dtype
    coding: Coding
    action_shape: tuple[int, ...]
    led: bool


class NpzEpisodes(LazyEpisodes):
    """A folder of ``.npz`` archives, one per episode, in the order of the numbers in their names; or one archive.

    Keys, T steps each: ``obs`` (``image`` in Memory Maze's own data), ``action``, ``reward``, and ``done`` where there
    is one; others are left for :meth:`arrays`. Images may be uint8, or floats in [0, 1], which become uint8. Several
    integers at once (cards, cells: POPGym's ``MultiDiscrete`` and ``Tuple``) become one vector of ones and zeros, a
    part for each. Actions may be integers, vectors, pairs (row, column) of a square board, which become
    ``row * size + column``, or one-hot rows, which become integers.

    A row may hold the action that follows its observation, or as in Dreamer and Memory Maze the one that led to it.
    That is so with the key ``image``, and where the first one-hot row is all zeros. Such T + 1 rows give T steps.

    When the set is opened, actions and rewards of all archives are read, observations only where they are integers.

    Args:
        path: the folder or archive.
        observation_sizes: of observations that are several integers: the values each can take; by default one more than
            the largest in the files.

    The rest is explained at :class:`LazyEpisodes`, for all layouts.
    """

    layout = "npz episodes"

    def __init__(
        self, path: str | os.PathLike[str], *, observation_sizes: Sequence[int] | None = None, **options: Any
    ) -> None:
        self._sizes = None if observation_sizes is None else np.asarray(observation_sizes, np.int64)
        super().__init__(path, **options)

    def _open(self, limit: int | None) -> Contents:
        self._files = episode_files(self.path)
        if not self._files:
            raise ValueError(f"data set {self.path} must hold at least one episode (.npz), got 0")
        self._layout = self._read_layout()
        self.keys = (self._layout.observation, "action", "reward")
        self._outlines: list[tuple[np.ndarray, np.ndarray]] = []
        lows, highs, steps = [], [], 0
        for index in range(len(self._files)):
            if limit is not None and steps > limit:
                break
            seen = self._read_outline(index)
            lows.append(seen[0])
            highs.append(seen[1])
            steps += len(self._outlines[-1][1])
        return Contents(
            np.array([len(rewards) for _, rewards in self._outlines], dtype=np.int64),
            self._observation_space(np.min(lows, 0), np.max(highs, 0)),
            self._action_space(),
        )

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        """Everything in an episode's archive, as stored."""
        path = self._files[self._number(index)]
        with _Archive(path) as archive:
            return {key: archive.array(key) for key in archive.keys}

    def _outline(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        actions, rewards = self._outlines[index]
        return self._actions(actions, self._files[index]), rewards

    def file(self, index: int) -> Path:
        return self._files[index]

    def files(self) -> list[Path]:
        return list(self._files)

    @property
    def remark(self) -> str:
        shifted = ["rows hold the action that led to them, and are shifted"] * self._layout.led
        coded = [f"integers of {_short(self._sizes)} values are one-hot"] if self._sizes is not None else []
        return "; ".join(shifted + coded)

    def _decode(self, index: int) -> Episode:
        observations = self._observations(index)
        if self._layout.led:
            observations = observations[:-1]
        actions, rewards = self._outlines[index]
        return Episode(
            self.observation_space.convert(observations), self._actions(actions, self._files[index]), rewards
        )

    def _ending(self, index: int) -> tuple[np.ndarray | None, bool, bool]:
        final = self._observations(index)[-1] if self._layout.led else None
        with _Archive(self._files[index]) as archive:
            terminated = "done" in archive.keys and bool(np.ravel(archive.array("done"))[-1])
        return final, terminated, not terminated

    def _read_layout(self) -> _Layout:
        with _Archive(self._files[0]) as archive:
            key = "image" if "image" in archive.keys and "obs" not in archive.keys else "obs"
            archive.check_keys(key, "action", "reward")
            shape, dtype = archive.header(key)
            actions = archive.array("action")
        if not shape or not actions.ndim:
            raise ValueError(
                f"{self._files[0]}: {key} and action must have a row per step, got single values"
            )
        coding: Coding = "plain"
        if actions.ndim == 2 and actions.shape[1] == 2 and actions.dtype.kind in "iu":
            coding = "board"
        elif actions.ndim == 2 and actions.shape[1] > 2 and len(actions) > 1 and _is_one_hot(actions[1:]):
            coding = "one_hot"
        led = key == "image" or (coding == "one_hot" and not actions[0].any())
        return _Layout(key, _step_shape(shape), dtype, coding, actions.shape[1:], led)

    def _read_outline(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Keeps an archive's actions and rewards; gives the smallest and largest of observations that are integers."""
        layout, low, high = self._layout, np.zeros(1), np.zeros(1)
        with _Archive(self._files[index]) as archive:
            archive.check_keys(*self.keys)
            shape, dtype = archive.header(layout.observation)
            actions, rewards = archive.array("action"), archive.array("reward")
            for key, found, expected in (
                (layout.observation, (shape, dtype), (layout.shape, layout.dtype)),
                ("action", (actions.shape, actions.dtype), (layout.action_shape, actions.dtype)),
            ):
                if not found[0] or _step_shape(found[0]) != expected[0] or found[1].kind != expected[1].kind:
                    raise ValueError(
                        f"{archive.path}: {key} is {list(found[0])} {found[1]}, expected {per_step(expected[0])} "
                        f"{expected[1]} as in {self._files[0].name}"
                    )
            rows = {layout.observation: shape[0], "action": len(actions), "reward": len(rewards)}
            check_lengths(str(archive.path), rows)
            if len(layout.shape) < 2 and dtype.kind in "iub":
                values = archive.array(layout.observation).reshape(shape[0], -1)
                low, high = values.min(0, initial=0), values.max(0, initial=0)
        if rewards.dtype.kind not in "iubf":
            raise ValueError(f"{archive.path}: reward must be real numbers, got {rewards.dtype}")
        rewards = rewards[:, 0] if rewards.ndim == 2 and rewards.shape[1] == 1 else rewards
        first = int(layout.led)
        actions = actions[first:]
        if layout.coding == "one_hot":
            if not _is_one_hot(actions):
                raise ValueError(
                    f"{archive.path}: action has rows that are not one-hot, expected a single 1 in each"
                )
            actions = actions.argmax(1)
        self._outlines.append((actions, rewards[first:].astype(np.float32)))
        return low, high

    def _observation_space(self, low: np.ndarray, high: np.ndarray) -> SpaceSpec:
        shape, dtype = self._layout.shape, self._layout.dtype
        if dtype.kind in "iub" and len(shape) == 1 and shape != (1,):
            return self._one_hot_space(low, high)
        if self._sizes is not None:
            raise ValueError(
                f"observation_sizes are for several integers, {self.path} holds {per_step(shape)} {dtype}"
            )
        floats = len(shape) == 3 and dtype.kind == "f"
        spec = observation_spec(shape, np.dtype(np.uint8) if floats else dtype, float(low[0]), float(high[0]))
        if spec is None:
            raise TypeError(
                f"{self._files[0]}: {self._layout.observation} is {per_step(shape)} {dtype}, expected [T, size] "
                "numbers, [T] integers or images of uint8 or of floats in [0, 1]"
            )
        return spec

    def _one_hot_space(self, low: np.ndarray, high: np.ndarray) -> SpaceSpec:
        key = self._layout.observation
        sizes = high.astype(np.int64) + 1 if self._sizes is None else self._sizes
        if low.min() < 0 or sizes.sum() > _LARGEST_VECTOR:
            raise TypeError(
                f"{self.path}: {key} holds {low.min()} to {high.max()}, expected several integers from 0 on that "
                f"make a vector of at most {_LARGEST_VECTOR} ones and zeros, or floats"
            )
        if sizes.shape != high.shape or (high >= sizes).any():
            raise ValueError(
                f"observation_sizes must exceed the largest {key} in {self.path}, {_short(high)}, got {_short(sizes)}"
            )
        self._sizes = sizes
        return SpaceSpec("vector", (int(sizes.sum()),), low=0.0, high=1.0)

    def _action_space(self) -> SpaceSpec:
        if self._layout.coding == "one_hot":
            return SpaceSpec("discrete", (), n=self._layout.action_shape[0])
        named = [
            (actions, str(file)) for (actions, _), file in zip(self._outlines, self._files, strict=False)
        ]
        if self._layout.coding == "plain":
            return common_action_spec(named, "action")
        size = max(int(actions.max(initial=0)) for actions, _ in named) + 1
        return SpaceSpec("discrete", (), n=size * size)

    def _observations(self, index: int) -> np.ndarray:
        """As stored, but without a dimension of 1, and images as uint8."""
        key = self._layout.observation
        with _Archive(self._files[index]) as archive:
            values = archive.array(key)
        values = values.reshape(len(values), *_step_shape(values.shape))
        if self._sizes is not None:
            coded = np.zeros((len(values), int(self._sizes.sum())), np.float32)
            places = values.astype(np.int64) + np.cumsum(self._sizes) - self._sizes
            np.put_along_axis(coded, places, 1, 1)
            return coded
        return _pixels(values, archive.path, key) if values.ndim == 4 and values.dtype.kind == "f" else values

    def _actions(self, stored: np.ndarray, path: Path) -> np.ndarray:
        if self._layout.coding == "board":
            size = round((self.action_space.n or 0) ** 0.5)
            if stored.size and (stored.min() < 0 or stored.max() >= size):
                raise ValueError(
                    f"{path}: action holds {stored.min()} to {stored.max()}, expected 0 to {size - 1}"
                )
            return stored[:, 0].astype(np.int64) * size + stored[:, 1]
        return self.action_space.convert(stored)


def _short(values: np.ndarray) -> str:
    """Runs of equal numbers as 52 x 14."""
    edges = np.flatnonzero(np.diff(values, prepend=values[0] - 1, append=values[-1] - 1))
    runs = [(int(values[edge]), int(count)) for edge, count in zip(edges, np.diff(edges), strict=False)]
    return ", ".join(f"{count} x {value}" if count > 1 else str(value) for value, count in runs)


def episode_files(path: Path) -> list[Path]:
    """The archives of a folder, by the numbers in their names; or the archive itself."""
    if path.is_file():
        return [path]
    return sorted((entry for entry in path.glob("*.npz") if entry.is_file()), key=_by_number)


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Text and numbers of a name in turn, so that 10 comes after 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


class _Archive:
    """An opened archive, whose errors name the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self._zip = zipfile.ZipFile(path)
        self.keys = [name.removesuffix(".npy") for name in self._zip.namelist()]

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *raised: object) -> None:
        self._zip.close()

    def check_keys(self, *needed: str) -> None:
        check_keys(self.path, self.keys, needed)

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and number type."""
        with self._stream(key) as stream:
            return stream.shape, stream.dtype

    def array(self, key: str) -> np.ndarray:
        with self._stream(key) as stream:
            return stream.array()

    @contextmanager
    def _stream(self, key: str) -> Iterator[ArrayStream]:
        with reading(self.path), self._zip.open(f"{key}.npy") as member:
            yield ArrayStream(member, f"{self.path}: {key}")


def _step_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a step, without a dimension of 1 before others."""
    return shape[2:] if len(shape) == 3 and shape[1] == 1 else shape[1:]


def _is_one_hot(values: np.ndarray) -> bool:
    return bool(((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all())


def _pixels(values: np.ndarray, path: Path, key: str) -> np.ndarray:
    """Floats in [0, 1] as uint8."""
    if not (
        values.min(initial=0) >= 0 and values.max(initial=0) <= 1
    ):  # this way round NaN is refused as well
        raise ValueError(f"{path}: {key} holds {values.min()} to {values.max()}, expected pixels of 0 to 1")
    return np.rint(values * 255).astype(np.uint8)
