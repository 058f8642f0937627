"""Kernels of RATE, the Recurrent Action Transformer with Memory (arXiv 2306.09459): operations on tensors.

Importing this package needs torch alone; compiled backends are loaded when first used.
"""

from rate_kernels.attention import RelativePosition, memory_attention
from rate_kernels.backends import BackendUnavailable
from rate_kernels.gate import GateParameters, retention_gate
from rate_kernels.recurrence import RecurrenceShape, SegmentRecurrence, TokenInput, pack_segment, roll_cache
from rate_kernels.segment import SegmentLayout

__all__ = [
    "BackendUnavailable",
    "GateParameters",
    "RecurrenceShape",
    "RelativePosition",
    "SegmentLayout",
    "SegmentRecurrence",
    "TokenInput",
    "memory_attention",
    "pack_segment",
    "retention_gate",
    "roll_cache",
]
