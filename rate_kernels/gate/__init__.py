"""The memory retention gate."""

from rate_kernels.gate.api import retention_gate
from rate_kernels.gate.parameters import GateParameters

__all__ = ["GateParameters", "retention_gate"]
