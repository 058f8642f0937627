"""Segment recurrence: what carries a segment's results into the next one, and acting with it."""

from rate_kernels.recurrence.api import pack_segment, roll_cache
from rate_kernels.recurrence.engine import RecurrenceOutput, RecurrenceShape, SegmentRecurrence, TokenInput

__all__ = [
    "RecurrenceOutput",
    "RecurrenceShape",
    "SegmentRecurrence",
    "TokenInput",
    "pack_segment",
    "roll_cache",
]
