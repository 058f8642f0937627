"""Whether Triton's kernels can run here, and how they are launched, without importing Triton before it is needed."""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rate_kernels.backends import constant_when_compiled

MINIMUM_CAPABILITY = (8, 0)
CPU_ARCHITECTURE = 80
"""Whose rows the interpreter takes from the tables of configurations."""
LESS_SHARED_MEMORY = (86, 87, 89, 120, 121)
"""Architectures of workstations' cards, with less shared memory: they take the rows of 80."""


@constant_when_compiled
def interpreted() -> bool:
    """Whether ``TRITON_INTERPRET=1`` makes Triton run its kernels' source on the CPU, slowly, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@constant_when_compiled
def obstacle(device: torch.device) -> str | None:
    """Why Triton's kernels cannot run on tensors of ``device``, or None when they can."""
    if device.type == "cpu":
        if not interpreted():
            return "its kernels run on CUDA devices (on a CPU only for tests, with TRITON_INTERPRET=1)"
    elif device.type != "cuda":
        return f"its kernels run on CUDA devices, not on {device.type}"
    elif torch.cuda.get_device_capability(device) < MINIMUM_CAPABILITY:
        return f"it needs compute capability 8.0 or later, {torch.cuda.get_device_name(device)} has less"
    return _missing()


@functools.cache
def _missing() -> str | None:
    try:
        importlib.import_module("triton")
    except Exception as error:  # a broken installation raises anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return f"triton cannot be imported ({reason}): pip install triton"
    return None


@functools.cache
def _capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@constant_when_compiled
def little_shared_memory(device: torch.device) -> bool:
    """Whether ``device`` has the 99 KB of shared memory of a workstation's card."""
    return device.type == "cuda" and _capability(device) in LESS_SHARED_MEMORY


def architecture(device: torch.device) -> int:
    """Whose rows ``device`` takes: its compute capability as one number, such as 90; 80 for a CPU and small cards."""
    if device.type == "cpu" or little_shared_memory(device):
        return CPU_ARCHITECTURE
    return _capability(device)


def float32_precision() -> str:
    """``"tf32"`` where torch is set to allow it in float32 matrix products (``set_float32_matmul_precision``)."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


class Launch(NamedTuple):
    """A kernel with everything its launch needs; ``arguments`` by name."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int
    num_stages: int

    def run(self) -> None:
        """Launches on the device of the tensors and its current stream."""
        tensor = next(x for x in self.arguments.values() if isinstance(x, Tensor))
        with torch.cuda.device_of(tensor):
            self.kernel[self.grid](
                **self.arguments, num_warps=self.num_warps, num_stages=self.num_stages, enable_fp_fusion=True
            )
