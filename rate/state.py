"""What is carried from one segment to the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class SegmentState:
    """Memory and cache after a segment.

    Args:
        memory: ``[B, m, d]``, or None for a model without memory tokens.
        cache: per layer ``[B, c, d]``, hidden states without gradient; c = 0 before the first segment.
    """

    memory: Tensor | None
    cache: list[Tensor]

    def detach(self) -> SegmentState:
        """The same values, cut from the graph that made them."""
        return SegmentState(
            None if self.memory is None else self.memory.detach(), [c.detach() for c in self.cache]
        )

    def keep_memory_where(self, frozen: Tensor, previous: SegmentState) -> SegmentState:
        """This state with the memory of ``previous`` in the rows where ``frozen`` (bool ``[B]``) is True."""
        if self.memory is None or previous.memory is None:
            return self
        return SegmentState(torch.where(frozen[:, None, None], previous.memory, self.memory), self.cache)

    def rows(self, index: Tensor | slice) -> SegmentState:
        """The state of the batch entries ``index``: int64 ``[n]`` or a slice."""
        memory = None if self.memory is None else self.memory[index]
        return SegmentState(memory, [layer[index] for layer in self.cache])
