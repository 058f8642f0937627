"""Finds launch configurations of the Triton kernels and writes them into their tables.

On a GPU, every candidate that the architecture can hold is timed, and the fastest becomes the row:

    python -m rate_kernels.tune [--kernels NAME ...] [--dtypes NAME ...] [--folder FOLDER]

Without one, rows can be chosen for a given architecture by compiling alone; they are marked as not measured:

    python -m rate_kernels.tune --architecture 90
"""

from __future__ import annotations

import argparse
import contextlib
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

Settings = dict[str, Any]
Sizes = dict[str, int]

DTYPES = ("bfloat16", "tf32", "float32")


def operations() -> dict[str, Any]:
    """For every kernel, the module that says what it may be tried with."""
    from rate_kernels.attention.triton import tuning as attention
    from rate_kernels.gate.triton import tuning as gate

    return {kernel: module for module in (attention, gate) for kernel in module.KERNELS}


def compiled(
    kernel: str, sizes: Sizes, dtype: str, settings: Settings, architecture: int, **flags: Any
) -> Compiled:
    """Compiles one kernel with these settings for ``architecture``, for tensors that are not there.

    ``flags`` choose a version of the kernel; see ``prepare`` of its tuning module.
    """
    with _precision(dtype):
        call = operations()[kernel].prepare(kernel, sizes, dtype, settings, "meta", **flags)
    return compile_kernel(
        call.kernel,
        call.arguments,
        architecture,
        num_warps=call.num_warps,
        num_stages=call.num_stages,
        enable_fp_fusion=True,
    )


@contextlib.contextmanager
def _precision(dtype: str) -> Iterator[None]:
    """``"tf32"`` or not as torch's float32 matrix products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def by_compiling(kernel: str, sizes: Sizes, dtype: str, architecture: int) -> Settings:
    """The first candidate that fits shared memory and spills nothing; failing that, the one that spills least."""
    widest = max(size for name, size in sizes.items() if name != "length")
    room = SHARED_MEMORY[
        89 if architecture == 80 and widest <= 128 else architecture
    ]  # 89 takes the rows of 80
    least: tuple[int, Settings] | None = None
    for settings in operations()[kernel].candidates(kernel, sizes):
        built = compiled(kernel, sizes, dtype, settings, architecture)
        if built.shared > room:
            continue
        if built.spills == 0:
            return dict(settings)
        if least is None or built.spills < least[0]:
            least = (built.spills, settings)
    if least is None:
        raise LookupError(f"no candidate of {kernel} fits sm_{architecture} with {sizes} in {dtype}")
    return least[1]


def by_measuring(kernel: str, sizes: Sizes, dtype: str) -> tuple[Settings, float]:
    """The fastest candidate on this device, and its milliseconds."""
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    module = operations()[kernel]
    best: tuple[Settings, float] | None = None
    with _precision(dtype):
        for settings in module.candidates(kernel, sizes):
            call = module.prepare(kernel, sizes, dtype, settings)
            try:
                milliseconds = float(do_bench(call.run, warmup=10, rep=40, return_mode="median"))
            except OutOfResources:
                continue
            if best is None or milliseconds < best[1]:
                best = (settings, milliseconds)
    if best is None:
        raise LookupError(f"no candidate of {kernel} runs on this device with {sizes} in {dtype}")
    return best


def row(kernel: str, sizes: Sizes, dtype: str, architecture: int | None) -> dict[str, Any]:
    """A new row: measured on this device, or for ``architecture`` by compiling."""
    if architecture is None:
        settings, milliseconds = by_measuring(kernel, sizes, dtype)
        measured = f"{torch.cuda.get_device_name()}, {milliseconds:.4f} ms"
        architecture = triton_support.architecture(torch.device("cuda", torch.cuda.current_device()))
    else:
        settings, measured = by_compiling(kernel, sizes, dtype, architecture), None
    found = {"kernel": kernel, "architecture": architecture, "dtype": dtype, "sizes": sizes}
    return found | {"settings": settings, "measured": measured}


def write(table: Path, new: dict[str, Any]) -> None:
    """Puts a row into a table, in the place of the one with the same kernel, architecture, dtype and sizes."""
    key: Callable[[dict[str, Any]], str] = lambda row: json.dumps(
        [row["kernel"], row["dtype"], row["architecture"], list(row["sizes"].items())]
    )
    rows = json.loads(table.read_text()) if table.exists() else []
    rows = sorted([row for row in rows if key(row) != key(new)] + [new], key=key)
    text = ",\n".join(" " + json.dumps(row) for row in rows)
    with tempfile.NamedTemporaryFile("w", dir=table.parent, suffix=".new", delete=False) as file:
        file.write(f"[\n{text}\n]\n")
    os.replace(file.name, table)
    configurations.load.cache_clear()


def main(arguments: Sequence[str] | None = None) -> int:
    """Finds rows and writes them, one at a time; arguments are the command line's by default."""
    modules = operations()
    parser = argparse.ArgumentParser(
        prog="python -m rate_kernels.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kernels", nargs="+", choices=list(modules), default=list(modules))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--architecture", type=int, choices=(80, 90, 100), help="choose by compiling alone")
    parser.add_argument(
        "--folder", type=Path, help="write attention.json and gate.json here, not the package's tables"
    )
    options = parser.parse_args(arguments)
    if options.architecture is None and not torch.cuda.is_available():
        parser.error("there is no CUDA device to measure on; --architecture chooses by compiling alone")
    for kernel in options.kernels:
        module = modules[kernel]
        name = kernel.partition("_")[0]
        table = module.TABLE if options.folder is None else options.folder / f"{name}.json"
        for dtype in options.dtypes:
            for sizes in module.rows(kernel, dtype):
                found = row(kernel, sizes, dtype, options.architecture)
                write(table, found)
                print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
