"""Pickles read without running what is in them.

A pickle is a program: it may call whatever it can import. Here it can import nothing. The few names with which numpy
pickles its arrays lead to the stand-ins below, which take the bytes and the description of an array; numpy makes the
array after they have been checked.
"""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rate.data.sources.errors import reading

_KINDS = "biuf"


def load_pickle(path: Path) -> Any:
    """A pickle of numpy arrays, lists, tuples, dicts, strings and numbers.

    Raises:
        ValueError: for anything else in it, by name, and for a damaged file.
    """
    with reading(path), open(path, "rb") as file:
        try:
            return _made(_Unpickler(file).load())
        except _Refused as error:
            raise ValueError(f"{path} {error}") from None
        except OSError:
            raise
        except Exception as error:  # a damaged pickle is a program that fails anywhere, in any way
            said = str(error) or type(error).__name__
            raise ValueError(f"{path} is not a pickle, or damaged: {said}") from None


def first_opcode(path: Path) -> str | None:
    """What a pickle makes first, by its opcode's name (``EMPTY_LIST``, ``EMPTY_DICT``); None for no pickle.

    Nothing of it is made.
    """
    try:
        with open(path, "rb") as file:
            for opcode, _, _ in pickletools.genops(file):
                if opcode.name not in ("PROTO", "FRAME", "MARK"):
                    return opcode.name
    except (ValueError, OSError, UnicodeError):
        pass
    return None


class _Refused(Exception):
    """What is not read, as the rest of a sentence that begins with the file."""


class _StandIn:
    """Takes what numpy's own would; a state it does not expect is refused."""

    def __setstate__(self, state: Any) -> None:
        raise _Refused(f"describes a {type(self).__name__} in an unknown way, expected what numpy writes")

    def made(self) -> Any:
        raise NotImplementedError


class _DType(_StandIn):
    """Stands in for ``numpy.dtype``."""

    def __init__(self, code: Any, *flags: Any) -> None:
        self._code = code if isinstance(code, str) else ""
        self._order = "="

    def __setstate__(self, state: Any) -> None:
        self._order = {"<": "<", ">": ">"}.get(state[1], "=")
        if state[3] is not None or state[4] is not None:
            raise _Refused("holds records, expected arrays of numbers")

    def made(self) -> np.dtype[Any]:
        if self._code[:1] not in _KINDS or not self._code[1:].isdigit():
            raise _Refused(f"holds an array of type {self._code or 'unknown'!r}, expected numbers")
        return np.dtype(self._code).newbyteorder(self._order)  # type: ignore[arg-type]


class _Array(_StandIn):
    """Stands in for an array: shape, type, order and bytes."""

    def __init__(self, *arguments: Any) -> None:
        self._state: tuple[Any, ...] = ()
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        self._state = tuple(state)

    def made(self) -> np.ndarray:
        if self.array is None:
            if len(self._state) != 5 or not isinstance(self._state[2], _DType):
                raise _Refused("holds an array without its description, expected one that numpy pickled")
            _, shape, dtype, fortran, data = self._state
            self.array = _array(data, dtype, shape, "F" if fortran else "C")
            self._state = ()
        return self.array


def _array(data: Any, dtype: _DType, shape: Any, order: str) -> np.ndarray:
    made = dtype.made()
    if isinstance(data, str):  # bytes as Python 2 and protocol 2 leave them
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise _Refused(f"holds an array of {type(data).__name__}, expected bytes")
    return np.frombuffer(data, made).reshape(shape, order="F" if order == "F" else "C")


class _Scalar(_StandIn):
    """Stands in for a numpy number."""

    def __init__(self, dtype: _DType, data: Any = b"") -> None:
        self._dtype, self._data = dtype, data

    def made(self) -> Any:
        return _array(self._data, self._dtype, (1,), "C")[0]


class _Buffer(_StandIn):
    """Stands in for an array of pickle protocol 5."""

    def __init__(self, data: Any, dtype: _DType, shape: Any, order: str) -> None:
        self._array = _array(data, dtype, shape, order)

    def made(self) -> np.ndarray:
        return self._array


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Stands in for ``_codecs.encode``, with which older protocols write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"encodes bytes as {encoding!r}, expected latin1")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """Stands in for ``bytes``, with which older protocols write none."""
    if arguments:
        raise _Refused("makes bytes of something else, expected none")
    return b""


class _Unpickler(pickle.Unpickler):
    _KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _DType,
        ("_codecs", "encode"): _encode,
        ("builtins", "bytes"): _no_bytes,
        ("__builtin__", "bytes"): _no_bytes,
        **{
            (f"numpy.{core}.{module}", name): stand_in
            for core in ("core", "_core")
            for module, name, stand_in in (
                ("multiarray", "_reconstruct", _Array),
                ("multiarray", "scalar", _Scalar),
                ("numeric", "_frombuffer", _Buffer),
            )
        },
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._KNOWN:
            return self._KNOWN[module, name]
        raise _Refused(
            f"asks for {module}.{name}, which is not imported: a pickle can run code, so numpy arrays, lists, "
            "dicts and numbers are all that is read"
        )

    def persistent_load(self, identifier: Any) -> Any:
        raise _Refused("refers to things outside of itself, expected a pickle that is complete")


def _made(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """The same with arrays in place of stand-ins; lists and dicts are changed as they are, and only once."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    made = value
    if isinstance(value, list):
        seen[id(value)] = value
        value[:] = [_made(item, seen) for item in value]
    elif isinstance(value, dict):
        seen[id(value)] = value
        for key in list(value):
            value[key] = _made(value[key], seen)
    elif isinstance(value, tuple):
        made = seen[id(value)] = tuple(_made(item, seen) for item in value)
    elif isinstance(value, _StandIn) and not isinstance(value, _DType):
        made = value.made()
    elif not isinstance(value, str | bytes | int | float | None):
        raise _Refused(
            f"holds {type(value).__name__.strip('_')}, expected numpy arrays, lists, dicts and numbers"
        )
    return made
