"""What is carried from one segment to the next."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree


class SegmentState(NamedTuple):
    """Memory and cache after a segment.

    A named tuple, because whatever copies, splits, joins or traces a module's arguments and results knows tuples.

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


# A state can be saved and loaded by torch.export and by torch.load(weights_only=True): it is tensors and no code.
_pytree._register_namedtuple(SegmentState, serialized_type_name="rate.SegmentState")
torch.serialization.add_safe_globals([SegmentState])
