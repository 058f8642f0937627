"""Memory-token attention."""

from rate_kernels.attention.api import memory_attention
from rate_kernels.attention.position import RelativePosition

__all__ = ["RelativePosition", "memory_attention"]
