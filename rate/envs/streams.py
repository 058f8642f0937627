"""Random numbers for many environments at once: one counter-based stream (SplitMix64) for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Streams:
    """Independent streams whose draws depend on their own seed and earlier draws alone, never on the batch.

    ``seeds`` is uint64 ``[num_envs]``; an index below is a slice or a bool mask ``[num_envs]``.
    """

    def __init__(self, seeds: NDArray[np.uint64]) -> None:
        self._states = _mix(seeds + _STEP)

    def seed(self, index: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        """Starts the streams at ``index`` again from ``seeds``, uint64, one for each of them."""
        self._states[index] = _mix(seeds + _STEP)

    def below(self, bound: int, index: slice | NDArray[np.bool_]) -> NDArray[np.int64]:
        """One integer in ``0 .. bound - 1`` from each stream at ``index``, int64; ``bound`` below 2**31."""
        self._states[index] += _STEP
        high = _mix(self._states[index]) >> np.uint64(32)
        return ((high * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)
