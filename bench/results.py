"""Results as JSON: what ran, where, on what, with every sample."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
SCHEMA = 2


@dataclass
class Entry:
    """One variant of one comparison: its samples, or why there are none.

    Args:
        group, size, mode, variant: together they name the measurement.
        ours: whether the variant is this package.
        parameters: the size in numbers.
        milliseconds: samples; the same index in the entries of one comparison is the same round of one run.
        peak_bytes: memory at the peak above what was held before, or None.
        error: largest relative error by norm that the gate before the timing found.
        reason: why it was not measured, or None.
    """

    group: str
    size: str
    mode: str
    variant: str
    ours: bool
    parameters: dict[str, Any]
    milliseconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    error: float | None = None
    reason: str | None = None

    @property
    def median(self) -> float | None:
        """Milliseconds, or None without samples."""
        return statistics.median(self.milliseconds) if self.milliseconds else None

    @property
    def comparison(self) -> tuple[str, str, str]:
        return self.group, self.size, self.mode


@dataclass
class Result:
    """A run of one group."""

    what: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    entries: list[Entry] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        return self.machine["kind"] == "cuda"

    def comparisons(self) -> dict[tuple[str, str, str], list[Entry]]:
        """Entries by what they compare, in the order measured."""
        found: dict[tuple[str, str, str], list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.comparison, []).append(entry)
        return found

    def as_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}

    def write(self, folder: Path) -> Path:
        """Writes ``<folder>/<date>-<what>.json``, beside and then renamed; returns the path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.machine['date']}-{self.what}.json"
        temporary = path.with_suffix(".json.new")
        temporary.write_text(_compact(json.dumps(self.as_json(), indent=1)) + "\n")
        os.replace(temporary, path)
        return path

    def folder(self) -> Path:
        """Where results of this device are kept."""
        return RESULTS / (slug(self.machine["device"]) if self.on_gpu else "cpu")


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _compact(text: str) -> str:
    """Lists of numbers on one line each."""
    return re.sub(r"\[\s+([-\d.e+,\s]+?)\s+\]", lambda m: "[" + " ".join(m[1].split()) + "]", text)


def parse(data: Any, origin: str) -> Result:
    """A result from its JSON.

    Raises:
        ValueError: if it is none, naming ``origin``.
    """
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(
            f"{origin} is no benchmark result of schema {SCHEMA}: rerun it with python -m bench run"
        )
    try:
        entries = [Entry(**entry) for entry in data["entries"]]
        return Result(data["what"], data["machine"], data["settings"], entries)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{origin} is not a complete benchmark result: {error}") from None


def load(path: Path) -> list[Result]:
    """The results in a file: one as ``run`` writes it, or several in a record of ``bench/device/run.sh``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no results.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no results file {path}")
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if isinstance(data, dict) and "results" in data and "stages" in data:
        return [parse(one, f"{path}, result {index}") for index, one in enumerate(data["results"])]
    return [parse(data, str(path))]


def newest(folder: Path) -> dict[str, Result]:
    """The newest result of every group in a folder of ``bench/results``."""
    found: dict[str, Result] = {}
    for path in sorted(folder.glob("*.json")):  # their names begin with the date
        for result in load(path):
            found[result.what] = result
    return found


def machine(device: torch.device, root: Path | None = None) -> dict[str, Any]:
    """Device, versions and commit of this run."""
    described = {
        "kind": device.type,
        "device": f"CPU: {_cpu()}",
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "load": [round(x, 2) for x in os.getloadavg()],
        "torch": torch.__version__,
        "triton": _version("triton"),
        "python": platform.python_version(),
        "commit": _commit(root or Path(__file__).parents[1]),
        "date": datetime.date.today().isoformat(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
        }
    return described


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(root: Path) -> str | None:
    """What git says, or BENCH_COMMIT where a copy of the sources has no repository."""
    said = os.environ.get("BENCH_COMMIT") or None
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            cwd=root,
        )
    except OSError:  # no git
        return said
    return told.stdout.strip() or said


def _cpu() -> str:
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()}, {len(names) or os.cpu_count() or '?'} cores"
