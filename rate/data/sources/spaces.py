"""Spaces of files that do not state them, from the numbers they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rate.data.episodes import Role, SpaceSpec
from rate.data.sources.errors import per_step


def observation_spec(
    shape: tuple[int, ...], dtype: np.dtype[Any], low: float, high: float
) -> SpaceSpec | None:
    """The space of observations with this shape and number type.

    Args:
        shape: of one observation.
        dtype: as stored.
        low: the smallest value, used for integers without dimensions only.
        high: the largest value.

    Returns:
        None for what is not supported.
    """
    if shape in ((), (1,)) and dtype.kind in "iub":
        return _discrete(low, high)
    if len(shape) == 1 and dtype.kind in "iubf":
        return SpaceSpec("vector", shape)
    if len(shape) == 3 and dtype == np.uint8:
        from gymnasium.spaces import Box

        return SpaceSpec.from_space(Box(0, 255, shape, np.uint8), "observation")
    return None


def action_spec(shape: tuple[int, ...], dtype: np.dtype[Any], low: float, high: float) -> SpaceSpec | None:
    """The space of actions with this shape, number type, smallest and largest value.

    Continuous actions within [-1, 1] get these bounds, others their own. None for what is not supported.
    """
    if shape in ((), (1,)) and dtype.kind in "iub":
        return _discrete(low, high)
    if len(shape) == 1 and dtype.kind in "iubf":
        within = low >= -1 and high <= 1
        return SpaceSpec(
            "continuous", shape, low=-1.0 if within else float(low), high=1.0 if within else float(high)
        )
    return None


def _discrete(low: float, high: float) -> SpaceSpec:
    start = min(0, int(low))
    return SpaceSpec("discrete", (), n=int(high) - start + 1, start=start)


def agreed(found: SpaceSpec, given: SpaceSpec | None, role: Role, path: Path) -> SpaceSpec:
    """The space found, with number of values and bounds of the given one.

    Raises:
        ValueError: if what was found does not fit into it.
    """
    if given is None:
        return found
    if (found.kind, found.shape) != (given.kind, given.shape):
        raise ValueError(
            f"{path} holds {found.kind} {role}s {list(found.shape)}, expected {given.kind} {list(given.shape)}"
        )
    if found.kind == "discrete":
        last, expected = found.start + (found.n or 0) - 1, given.start + (given.n or 0) - 1
        if found.start < given.start or last > expected:
            raise ValueError(
                f"{path} holds {role}s {found.start} to {last}, expected {given.start} to {expected}"
            )
    return dataclasses.replace(found, n=given.n, start=given.start, low=given.low, high=given.high)


def common_observation_spec(
    episodes: Sequence[tuple[np.ndarray, str]], key: str = "observations"
) -> SpaceSpec:
    """The space of observations ``[T, ...]`` of at least one episode, each with its name for the message.

    Raises:
        ValueError: for one that differs from the first in shape or kind of numbers.
        TypeError: for what is not supported.
    """
    shape, dtype, low, high = _common(episodes, key)
    spec = observation_spec(shape, dtype, low, high)
    if spec is None:
        raise TypeError(
            f"{episodes[0][1]}: {key} are {per_step(shape)} {dtype}, expected [T, size] numbers, [T] integers or "
            "images of uint8"
        )
    return spec


def common_action_spec(episodes: Sequence[tuple[np.ndarray, str]], key: str = "actions") -> SpaceSpec:
    """The space of actions ``[T, ...]`` of several episodes; see :func:`common_observation_spec`."""
    shape, dtype, low, high = _common(episodes, key)
    spec = action_spec(shape, dtype, low, high)
    if spec is None:
        raise TypeError(
            f"{episodes[0][1]}: {key} are {per_step(shape)} {dtype}, expected [T, size] numbers or [T] integers"
        )
    return spec


def _common(
    episodes: Sequence[tuple[np.ndarray, str]], key: str
) -> tuple[tuple[int, ...], np.dtype[Any], float, float]:
    """Shape, number type, smallest and largest finite number."""
    first = episodes[0][0]
    low, high = np.inf, -np.inf
    for values, where in episodes:
        if values.shape[1:] != first.shape[1:] or (values.dtype.kind == "f") != (first.dtype.kind == "f"):
            raise ValueError(
                f"{where}: {key} are {list(values.shape)} {values.dtype}, expected "
                f"{per_step(first.shape[1:])} {first.dtype} as in the first episode"
            )
        if values.size and values.dtype.kind in "iubf" and values.ndim < 4:
            finite = values[np.isfinite(values)]
            if finite.size:
                low, high = min(low, finite.min()), max(high, finite.max())
    return first.shape[1:], first.dtype, *((float(low), float(high)) if low <= high else (0.0, 0.0))
