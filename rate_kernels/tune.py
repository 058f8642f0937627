"""Finds launch configurations of the attention kernels and writes them into their table.

On a GPU, every candidate that the architecture can hold is timed, and the fastest becomes the row:

    python -m rate_kernels.tune [--kernels NAME ...] [--dtypes NAME ...] [--table FILE]

Without one, rows can be chosen for a given architecture by compiling alone; they are marked as not measured:

    python -m rate_kernels.tune --architecture 90
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from rate_kernels import configurations, triton_support
from rate_kernels.ahead_of_time import SHARED_MEMORY, Compiled, compile_kernel
from rate_kernels.attention.triton import launch, tuning

Settings = dict[str, Any]


def compiled(
    kernel: str, sizes: tuning.Sizes, dtype: str, settings: Settings, architecture: int, **flags: Any
) -> Compiled:
    """Compiles one kernel with these settings for ``architecture``, for tensors that are not there.

    ``flags`` (shift, padded, dropout_p) choose a version of the kernel; see :func:`tuning.problem`.
    """
    problem = tuning.problem(sizes, dtype, "meta", **flags)._replace(chosen={kernel: settings})
    with _precision(dtype):
        call = tuning.prepare(kernel, problem)
    return compile_kernel(
        launch.kernels()[kernel], call.arguments, architecture, enable_fp_fusion=True, **call.options
    )


class _precision:
    """``"tf32"`` or ``"float32"`` as torch's float32 matrix products within a block."""

    def __init__(self, dtype: str) -> None:
        self.wanted = "high" if dtype == "tf32" else "highest"

    def __enter__(self) -> None:
        self.before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.wanted)

    def __exit__(self, *_: object) -> None:
        torch.set_float32_matmul_precision(self.before)


def by_compiling(kernel: str, sizes: tuning.Sizes, dtype: str, architecture: int) -> Settings:
    """The first candidate that fits shared memory and spills nothing; failing that, the one that spills least."""
    least: tuple[int, Settings] | None = None
    for settings in tuning.candidates(kernel, sizes, dtype):
        built = compiled(kernel, sizes, dtype, settings, architecture)
        if built.shared > SHARED_MEMORY[architecture]:
            continue
        if built.spills == 0:
            return settings
        if least is None or built.spills < least[0]:
            least = (built.spills, settings)
    if least is None:
        raise LookupError(f"no candidate of {kernel} fits sm_{architecture} with {sizes} in {dtype}")
    return least[1]


def by_measuring(kernel: str, sizes: tuning.Sizes, dtype: str) -> tuple[Settings, float]:
    """The fastest candidate on this device, and its milliseconds."""
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    best: tuple[Settings, float] | None = None
    problem = tuning.problem(sizes, dtype)
    with _precision(dtype):
        for settings in tuning.candidates(kernel, sizes, dtype):
            try:
                call = tuning.prepare(kernel, problem._replace(chosen={kernel: settings}))
                milliseconds = float(do_bench(call.run, warmup=10, rep=40, return_mode="median"))
            except OutOfResources:
                continue
            if best is None or milliseconds < best[1]:
                best = (settings, milliseconds)
    if best is None:
        raise LookupError(f"no candidate of {kernel} runs on this device with {sizes} in {dtype}")
    return best


def rows(kernels: Sequence[str], dtypes: Sequence[str], architecture: int | None) -> Iterator[dict[str, Any]]:
    """New rows: measured on this device, or for ``architecture`` by compiling."""
    for dtype in dtypes:
        for sizes in tuning.SIZES[dtype]:
            for kernel in kernels:
                row: dict[str, Any] = {"kernel": kernel, "dtype": dtype, "sizes": sizes}
                if architecture is None:
                    settings, milliseconds = by_measuring(kernel, sizes, dtype)
                    device = torch.device("cuda", torch.cuda.current_device())
                    measured = f"{torch.cuda.get_device_name()}, {milliseconds:.4f} ms"
                    row |= {"architecture": triton_support.architecture(device), "measured": measured}
                else:
                    settings = by_compiling(kernel, sizes, dtype, architecture)
                    row |= {"architecture": architecture, "measured": None}
                yield row | {"settings": settings}


def write(table: Path, new: Sequence[dict[str, Any]]) -> None:
    """Puts rows into a table, in the place of those with the same kernel, architecture, dtype and sizes."""
    kept = list(configurations.load(table)) if table.exists() else []
    key: Callable[[dict[str, Any]], str] = lambda row: json.dumps(
        [row["kernel"], row["dtype"], row["architecture"], row["sizes"]]
    )
    replaced = {key(row) for row in new}
    lines = sorted([row for row in kept if key(row) not in replaced] + list(new), key=key)
    names = ("kernel", "architecture", "dtype", "sizes", "settings", "measured")
    text = ",\n".join(" " + json.dumps({name: row[name] for name in names}) for row in lines)
    with tempfile.NamedTemporaryFile("w", dir=table.parent, suffix=".new", delete=False) as file:
        file.write(f"[\n{text}\n]\n")
    os.replace(file.name, table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Finds rows and writes them, one at a time; arguments are the command line's by default."""
    parser = argparse.ArgumentParser(
        prog="python -m rate_kernels.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kernels", nargs="+", choices=tuning.KERNELS, default=tuning.KERNELS)
    parser.add_argument("--dtypes", nargs="+", choices=list(tuning.SIZES), default=list(tuning.SIZES))
    parser.add_argument(
        "--architecture", type=int, choices=sorted(SHARED_MEMORY), help="choose by compiling alone"
    )
    parser.add_argument(
        "--table", type=Path, default=launch.TABLE, help="the table to write (default: the package's)"
    )
    options = parser.parse_args(arguments)
    if options.architecture is None and not torch.cuda.is_available():
        parser.error("there is no CUDA device to measure on; --architecture chooses by compiling alone")
    for row in rows(options.kernels, options.dtypes, options.architecture):
        write(options.table, [row])
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
