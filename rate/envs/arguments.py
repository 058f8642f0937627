"""Checks of the environments' constructor arguments: one line that says what came and what fits."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray


def whole_number(name: str, value: Any, at_least: int) -> int:
    """``value`` as an int. Raises TypeError where it is not an integer, ValueError where it is too small."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    return int(value)


def finite_number(name: str, value: Any) -> float:
    """``value`` as a float. Raises TypeError where it is no number, ValueError where it is not finite."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def switch(name: str, value: Any) -> bool:
    """``value`` as a bool. Raises TypeError where it is not one."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def whole_numbers(name: str, value: Any, count: int, at_least: int) -> NDArray[np.int64]:
    """One integer, or one for each of ``count`` environments, as int64 ``[count]``.

    Raises TypeError where the values are not integers, ValueError where their number or size does not fit.
    """
    values = np.asarray(value)
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an integer or an integer array [{count}], got {value!r}")
    if values.shape not in ((), (count,)):
        raise ValueError(f"{name} must be an integer or have shape [{count}], got shape {list(values.shape)}")
    if values.min() < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {values.min()}")
    return np.broadcast_to(values, (count,)).astype(np.int64)
