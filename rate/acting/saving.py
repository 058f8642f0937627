"""An actor's state as bytes: named arrays, without pickles, with a version."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

VERSION = 1
_MAGIC = b"rate actor\n"


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as bytes, with a checksum."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    body = buffer.getvalue()
    return _MAGIC + bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "little") + body


def from_bytes(data: bytes) -> dict[str, np.ndarray]:
    """What :func:`to_bytes` was given.

    Raises:
        ValueError: if the bytes are something else, damaged, or of another version.
    """
    start = len(_MAGIC) + 5
    if not isinstance(data, bytes) or data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise ValueError("state must be bytes from state_bytes(), got something else")
    if data[len(_MAGIC)] != VERSION:
        raise ValueError(f"state must be of version {VERSION}, got version {data[len(_MAGIC)]}")
    body = data[start:]
    if zlib.crc32(body) != int.from_bytes(data[start - 4 : start], "little"):
        raise ValueError("state is damaged: its checksum does not fit")
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"state is damaged: {error}") from None
