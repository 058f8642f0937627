"""Acting: new tokens through all layers, keys and values kept, memory and cache carried over."""

from rate_kernels.recurrence.engine.api import RecurrenceOutput, SegmentRecurrence
from rate_kernels.recurrence.engine.inputs import TokenInput
from rate_kernels.recurrence.engine.shape import RecurrenceShape

__all__ = ["RecurrenceOutput", "RecurrenceShape", "SegmentRecurrence", "TokenInput"]
