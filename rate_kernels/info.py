"""What is installed, what was built, and which backend can run which operation here.

python -m rate_kernels.info [--json]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

import torch

from rate_kernels.backends import BACKENDS
from rate_kernels.recurrence import native

OPERATIONS = {
    "memory_attention": "rate_kernels.attention.api",
    "retention_gate": "rate_kernels.gate.api",
    "pack_segment": "rate_kernels.recurrence.api",
    "roll_cache": "rate_kernels.recurrence.api",
    "SegmentRecurrence": "rate_kernels.recurrence.engine.api",
}
"""Every operation, and the module whose ``obstacles(device)`` says why each of its backends cannot run."""


def collect() -> dict[str, Any]:
    """Everything this module prints, as plain data (JSON-serialisable).

    Returns:
        ``versions``: version per package, or why it cannot be had; ``devices``: name per device; ``threads``:
        numbers of threads; ``build``: the record of the native build, or None if the package was never
        installed; ``environment``: the RATE_* variables; ``backends``: device -> operation -> backend -> None
        if it can run, else why not. A backend that an operation does not have is not listed.
    """
    devices = _devices()
    return {
        "versions": _versions(),
        "devices": devices,
        "threads": {
            "torch": torch.get_num_threads(),
            "torch interop": torch.get_num_interop_threads(),
            "cpu count": os.cpu_count(),
        },
        "build": native.build_record(),
        "environment": {name: os.environ[name] for name in sorted(os.environ) if name.startswith("RATE_")},
        "backends": {
            device: {name: _obstacles(module, torch.device(device)) for name, module in OPERATIONS.items()}
            for device in devices
        },
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("rate-kernels", "torch", "triton", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
            if package != "rate-kernels":
                importlib.import_module(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
        except (
            Exception
        ) as error:  # a broken installation raises anything, and must not break the report about it
            versions[package] += f", but it cannot be imported: {_one_line(error)}"
    versions["CUDA of torch"] = torch.version.cuda or "none (a CPU build)"
    return versions


def _devices() -> dict[str, str]:
    devices = {"cpu": platform.processor() or platform.machine()}
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        devices[f"cuda:{index}"] = f"{torch.cuda.get_device_name(index)} (sm_{major}{minor})"
    return devices


def _obstacles(module: str, device: torch.device) -> dict[str, str | None]:
    found: dict[str, str | None] = importlib.import_module(module).obstacles(device)
    return found


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def report(data: dict[str, Any]) -> str:
    """The text that the command prints for what :func:`collect` returns."""
    lines: list[str] = []

    def section(title: str, entries: dict[str, Any]) -> None:
        width = max(map(len, entries), default=0)
        lines.extend(["", title, *(f"  {name:{width}}  {value}" for name, value in entries.items())])

    section("versions", data["versions"])
    section("devices", data["devices"])
    section("threads", data["threads"])
    section("native build", _build_entries(data["build"]))
    section("environment", data["environment"] or {"(no RATE_* variable is set)": ""})
    for device, operations in data["backends"].items():
        lines += ["", f"backends on {device}", *_table(operations)]
    return "\n".join(line.rstrip() for line in lines[1:])


def _table(operations: dict[str, dict[str, str | None]]) -> list[str]:
    """A grid of operations and backends ("-": the operation has no such backend), then the reasons."""
    width = max(map(len, operations))
    lines = [f"  {'':{width}}  {''.join(f'{backend:11}' for backend in BACKENDS)}"]
    for name, found in operations.items():
        cells = ("-" if backend not in found else "no" if found[backend] else "yes" for backend in BACKENDS)
        lines.append(f"  {name:{width}}  {''.join(f'{cell:11}' for cell in cells)}")
    for name, found in operations.items():
        lines += [f"  {name}, {backend}: {reason}" for backend, reason in found.items() if reason]
    return lines


def _build_entries(build: dict[str, Any] | None) -> dict[str, str]:
    if build is None:
        return {"extension": "no: this source tree was not installed (pip install -e .)"}
    if not build["native"]:
        return {"extension": f"no: {build['reason']} ({build['remedy']} and reinstall)"}
    cuda = (
        f"{build['cuda_compiler']}, {build['cuda_architectures']}" if build["cuda"] else build["cuda_reason"]
    )
    return {
        "extension": f"{build['version']}, for Python {build['python']}",
        "compiler": f"{build['compiler']}, {build['flags']}",
        "CUDA": f"{'yes' if build['cuda'] else 'no'}: {cuda}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report, or with ``--json`` the data; arguments are the command line's by default."""
    parser = argparse.ArgumentParser(prog="python -m rate_kernels.info", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print machine-readable data")
    options = parser.parse_args(arguments)
    data = collect()
    print(json.dumps(data, indent=2) if options.json else report(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
