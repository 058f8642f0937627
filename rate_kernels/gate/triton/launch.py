"""What the launches of the gate's kernels have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from rate_kernels import configurations, triton_support
from rate_kernels.gate.parameters import GateParameters

Settings = dict[str, Any]

TABLE = Path(__file__).with_name("configurations.json")


class Call(NamedTuple):
    """A call of the gate whose tensors the kernels can read: the last dimension contiguous, parameters wholly.

    ``operand`` is the dtype in which factors enter the matrix products, such as ``"bfloat16"``; sums are float32, or
    float64. ``architecture`` is a compute capability such as 90.
    """

    memory: Tensor
    update: Tensor
    parameters: GateParameters
    num_heads: int
    activation: str
    operand: str
    architecture: int
    chosen: Mapping[str, Settings] | None = None
    """Settings by kernel, instead of the table's; for tuning."""

    def settings(self, kernel: str) -> Settings:
        """The table's settings of a kernel.

        float32 on tensor cores has rows of its own. The interpreter takes those too: their larger tiles are faster.
        """
        if self.chosen is not None:
            return self.chosen[kernel]
        _, tokens, d = self.memory.shape
        dtype = str(self.memory.dtype).removeprefix("torch.")
        lowered = self.operand != "float32" or triton_support.float32_precision() == "tf32"
        if self.memory.is_cpu or (dtype == "float32" and lowered):
            dtype = "tf32"
        return configurations.find(TABLE, kernel, self.architecture, dtype, {"m": tokens, "d": d})

    def arguments(self, *parameters: str, **tensors: Tensor) -> dict[str, Any]:
        """The arguments that all kernels share, the named parameters, and further ``[B, m, d]`` tensors."""
        d = self.memory.shape[-1]
        found: dict[str, Any] = {name: getattr(self.parameters, name) for name in parameters}
        for name, tensor in {"memory": self.memory, "update": self.update, **tensors}.items():
            found |= {name: tensor, f"{name}_batch": tensor.stride(0), f"{name}_row": tensor.stride(1)}
        return found | {
            "tokens": self.memory.shape[1],
            "D": d,
            "D_HEAD": d // self.num_heads,
            "ACTIVATION": self.activation,
            "OPERAND": getattr(tl, self.operand),
            "PRECISION": triton_support.float32_precision(),
            "TOTAL": tl.float64 if self.operand == "float64" else tl.float32,
        }


def power_of_two(size: int) -> int:
    """The smallest width of a tile that holds ``size``; matrix products need 16."""
    return max(16, triton.next_power_of_2(size))
