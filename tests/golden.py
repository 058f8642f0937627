"""The published implementation's inputs, parameters and outputs, beside the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rate_kernels import SegmentLayout

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"


def load(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """``meta`` and the arrays of ``<name>.npz``; fails where the folder is missing."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
        return json.loads(str(file["meta"])), arrays


def error(actual: Tensor, expected: Tensor) -> float:
    """Relative error by norm."""
    actual, expected = actual.detach(), expected.detach()
    return float((actual.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))


def layout(meta: dict[str, Any]) -> SegmentLayout:
    """The layout of an attention file."""
    return SegmentLayout(
        meta["num_mem_tokens"],
        bool(meta["num_mem_tokens"]) and meta["mem_at_end"],
        meta["cache_len"],
        meta["read_mem_from_cache"],
    )
