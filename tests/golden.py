"""The published implementation's inputs, parameters and outputs, beside the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"


def load(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """``meta`` and the arrays of ``<name>.npz``; fails where the folder is missing."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
        return json.loads(str(file["meta"])), arrays


def error(actual: Tensor, expected: Tensor) -> float:
    """Relative error by norm."""
    actual = actual.detach()
    return float((actual.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))
