"""What goes wrong below, said with the file's name."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what libraries raise on damaged files into a ValueError that names the file.

    A file that is missing or may not be read stays the OSError it is.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise type(error)(error.errno, os.strerror(error.errno or 0), str(path)) from None
    except OSError as error:
        if error.errno is not None:  # the system's, for instance a full disk
            raise
        raise _damaged(path, error) from None
    except (EOFError, KeyError, RuntimeError, zlib.error, zipfile.BadZipFile, struct.error) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ValueError:
    said = " ".join(str(error).split()) or type(error).__name__
    return ValueError(f"{path} cannot be read, it is damaged or cut short: {said}")


def check_keys(path: Path, held: Iterable[str], needed: Iterable[str]) -> None:
    """Raises ValueError unless ``held`` has all of ``needed``."""
    held = sorted(held)
    missing = [key for key in needed if key not in held]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it holds {', '.join(held) or 'nothing'}")


def check_lengths(where: str, lengths: dict[str, int]) -> None:
    """Raises ValueError unless all keys have as many rows as the last one."""
    last, expected = list(lengths.items())[-1]
    for key, length in lengths.items():
        if length != expected:
            raise ValueError(f"{where}: {key} holds {length} rows, expected {expected} as {last} does")


def per_step(shape: Iterable[int]) -> str:
    """The shape of an array with a row per step: ``[T, 3, 84, 84]``."""
    return f"[{', '.join(['T', *map(str, shape)])}]"
