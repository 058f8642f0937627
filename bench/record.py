"""Results as JSON: what ran, where, on what, with every sample."""

from __future__ import annotations

import datetime
import json
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Device, versions and commit of this run."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return {
        "device": gpu or f"CPU: {_cpu()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or None,
        "date": datetime.date.today().isoformat(),
    }


def save(what: str, result: dict[str, Any], folder: Path | None = None) -> Path:
    """Writes ``<results>/<device>/<date>-<what>.json`` with the machine added; returns the path."""
    where = machine()
    device = "cpu" if where["device"].startswith("CPU") else re.sub(r"\W+", "-", where["device"].lower())
    path = (folder or RESULTS / device) / f"{where['date']}-{what}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": where, **result}, indent=1) + "\n")
    return path


def _cpu() -> str:
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()}, {len(names) or '?'} cores"
