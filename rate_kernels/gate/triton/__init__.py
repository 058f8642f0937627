"""The memory retention gate in Triton kernels: one launch forward, two backward. Needs triton only when called."""

from rate_kernels.gate.triton.operators import obstacle_of_call, retention_gate

__all__ = ["obstacle_of_call", "retention_gate"]
