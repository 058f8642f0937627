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
        name: what it is called in errors: the file, and its key there.

    Attributes:
        shape: of the whole array.
        dtype: of its values.

    Raises:
        ValueError: for what ``numpy.save`` did not write, or an array of Python objects.
    """

    def __init__(self, stream: BinaryIO | Any, name: str) -> None:
        numpy_format = np.lib.format
        try:
            version = numpy_format.read_magic(stream)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"version {version} of the format, expected (1, 0) or (2, 0)")
            first = version == (1, 0)
            read = numpy_format.read_array_header_1_0 if first else numpy_format.read_array_header_2_0
            self.shape, fortran, self.dtype = read(stream)
        except ValueError as error:
            raise ValueError(f"{name} is not an array that numpy saved: {error}") from None
        if self.dtype.hasobject:
            raise ValueError(f"{name} holds Python objects, expected numbers")
        self._by_columns = fortran and len(self.shape) > 1
        self._stream, self._name = stream, name

    def array(self) -> np.ndarray:
        """All of it, also where it has no dimensions. Raises EOFError if the stream ends too early."""
        return self._read(self.shape, order="F" if self._by_columns else "C")

    def rows(self, count: int) -> np.ndarray:
        """The first ``count`` rows, or all where there are fewer; errors as :meth:`blocks`."""
        return next(self.blocks(count, max(count, 1)), np.empty((0, *self.shape[1:]), self.dtype))

    def blocks(self, count: int, size: int) -> Iterator[np.ndarray]:
        """The first ``count`` rows, at most ``size`` at a time.

        Raises:
            ValueError: if the array is stored by columns.
            EOFError: if the stream ends too early.
        """
        if self._by_columns:
            raise ValueError(f"{self._name} is stored by columns, expected by rows")
        count = min(count, self.shape[0])
        for start in range(0, count, size):
            yield self._read((min(size, count - start), *self.shape[1:]))

    def _read(self, shape: tuple[int, ...], order: Any = "C") -> np.ndarray:
        """The next values."""
        needed = math.prod(shape) * self.dtype.itemsize
        data = self._stream.read(needed)
        if len(data) < needed:
            raise EOFError(f"{needed - len(data)} bytes are missing of an array {list(self.shape)}")
        return np.frombuffer(data, self.dtype).reshape(shape, order=order)
