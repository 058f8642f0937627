"""The published implementation's inputs, parameters and outputs, beside the repository."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rate_kernels import SegmentLayout

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"


def names() -> set[str]:
    """Every file's name, without ``.npz``.

    Without the folder, which is not part of the repository, the test fails in CI and is skipped elsewhere.
    """
    if not FOLDER.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"the published implementation's data is not at {FOLDER}")
    return {path.stem for path in FOLDER.glob("*.npz")}


def load(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """``meta`` and the arrays of ``<name>.npz``."""
    assert name in names(), f"{name}.npz is missing from {FOLDER}"
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
