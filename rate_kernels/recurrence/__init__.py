"""Segment recurrence: what carries a segment's results into the next one."""

from rate_kernels.recurrence.api import pack_segment, roll_cache

__all__ = ["pack_segment", "roll_cache"]
