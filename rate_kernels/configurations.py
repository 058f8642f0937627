"""Launch configurations of the Triton kernels: data, looked up by architecture, dtype and sizes.

Every kernel folder holds a ``configurations.json``, a list of rows. A row names its ``kernel``, ``architecture``,
``dtype`` and *sizes* (upper bounds, such as ``d_head`` or ``length``), the ``settings`` it gives, and ``measured``:
the device it was tuned on, or null for a row that no device has measured. Nothing is tuned at run time;
``python -m rate_kernels.tune`` measures rows on a GPU and writes them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DTYPES = {"float16": "bfloat16", "float64": "float32"}
"""Dtypes without rows of their own: they take those of a dtype of the same size, or, for the interpreter, precision."""


@functools.cache
def load(path: Path) -> list[dict[str, Any]]:
    """The rows of a table."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


def find(
    path: Path, kernel: str, architecture: int, dtype: str, sizes: Mapping[str, int]
) -> dict[str, int | bool]:
    """The settings of the row that fits best.

    Of the kernel's rows for ``dtype`` whose sizes are all at least the ones asked for, the newest architecture not
    newer than ``architecture``, and of these the row whose sizes are smallest.

    Args:
        path: of the table.
        kernel: name of the kernel.
        architecture: compute capability as one number, such as 90.
        dtype: such as ``"bfloat16"``.
        sizes: the sizes of this call; a row that leaves a size out takes any.

    Raises:
        LookupError: if no row is large enough; the message names the largest sizes there are.
    """
    return _find(path, kernel, architecture, DTYPES.get(dtype, dtype), tuple(sizes.items()))


@functools.lru_cache(maxsize=1024)
def _find(
    path: Path, kernel: str, architecture: int, dtype: str, sizes: tuple[tuple[str, int], ...]
) -> dict[str, int | bool]:
    rows = [row for row in load(path) if row["kernel"] == kernel and row["dtype"] == dtype]
    rows = [row for row in rows if row["architecture"] <= architecture]
    fitting = [row for row in rows if all(row["sizes"].get(n, size) >= size for n, size in sizes)]
    if not fitting:
        largest = {n: max((row["sizes"].get(n, 0) for row in rows), default=0) for n, _ in sizes}
        raise LookupError(
            f"no configuration of {kernel} for {dtype} on sm_{architecture} with {dict(sizes)}; "
            f"the table reaches {largest}"
        )
    best = min(
        fitting, key=lambda row: (-row["architecture"], *(row["sizes"].get(n, 1 << 40) for n, _ in sizes))
    )
    settings: dict[str, int | bool] = best["settings"]
    return settings
