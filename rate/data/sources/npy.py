"""Arrays in numpy's file format, read from a stream: the header alone, or the first rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np


class ArrayStream:
    """An array that ``numpy.save`` wrote, read from its start.

    Args:
        stream: at the beginning of the array, for instance a decompressing file.

    Attributes:
        shape: of the whole array.
        dtype: of its values.

    Raises:
        ValueError: for what ``numpy.save`` did not write, or an array of Python objects.
    """

    def __init__(self, stream: BinaryIO | Any) -> None:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"is in version {version} of numpy's format, expected (1, 0) or (2, 0)")
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        self.shape, self._fortran, self.dtype = read(stream)
        if self.dtype.hasobject:
            raise ValueError("holds Python objects, expected numbers")
        self._stream = stream

    def array(self) -> np.ndarray:
        """All of it, also where it has no dimensions."""
        return self.rows(self.shape[0]) if self.shape else self._read((), 1)

    def rows(self, count: int) -> np.ndarray:
        """The first ``count`` rows; errors as :meth:`blocks`."""
        count = min(count, self.shape[0])
        return self._read((count, *self.shape[1:]), count)

    def blocks(self, count: int, size: int) -> Iterator[np.ndarray]:
        """The first ``count`` rows, at most ``size`` at a time.

        Raises:
            ValueError: if the array is stored by columns.
            EOFError: if the stream ends too early.
        """
        for start in range(0, min(count, self.shape[0]), size):
            here = min(size, count - start, self.shape[0] - start)
            yield self._read((here, *self.shape[1:]), start + here)

    def _read(self, shape: tuple[int, ...], end: int) -> np.ndarray:
        """The next values, up to row ``end``."""
        by_columns = self._fortran and len(self.shape) > 1
        if by_columns and shape != self.shape:
            raise ValueError("is stored by columns, expected by rows")
        needed = math.prod(shape) * self.dtype.itemsize
        data = self._stream.read(needed)
        if len(data) < needed:
            raise EOFError(f"it ends {needed - len(data)} bytes before row {end} of {self.shape} does")
        return np.frombuffer(data, self.dtype).reshape(shape, order="F" if by_columns else "C")
