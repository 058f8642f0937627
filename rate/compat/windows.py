"""Memory for transformers that read windows: a window is cut into segments, and memory tokens join them.

A window of ``L`` steps, ``P`` tokens each, may start anywhere in an episode and be padded on either side. Segments
start at the steps of the episode that are multiples of ``segment_length``, in training and in acting alike, so that
a window's timesteps say where its segments lie. Without memory tokens a window is read whole, as the originals do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rate.config import RateConfig
from rate.layers import RetentionGate
from rate_kernels import SegmentLayout

Transform = Callable[[Tensor, SegmentLayout, Tensor | None], Tensor]
"""``(x [B, m + n (+ m), d], layout, key_start int [B] or None) -> [B, m + n (+ m), d]``, or more features than d: the
first d of them are what memory is written from, and all are handed back."""


def padding_first(real: Tensor) -> tuple[Tensor, Tensor]:
    """How padding goes to the front while real steps keep their order, from bool ``real [B, L]``.

    Returns:
        int64 ``[B]``, how many are padding, and int64 ``[B, L]``, where each goes.
    """
    start = (~real).sum(1)
    return start, torch.where(real, start[:, None] + real.cumsum(1) - 1, (~real).cumsum(1) - 1)


class WindowMemory(nn.Module):
    """The memory tokens of a model that reads windows, and the gate that keeps them.

    Args:
        d_model: width of a token.
        memory_tokens: m; 0 reads windows whole and has no parameters.
        segment_length: K, steps per segment.
        gate_heads: heads of the memory retention gate; 0 hands memory over as written.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, d_model: int, memory_tokens: int, segment_length: int, gate_heads: int = 1) -> None:
        super().__init__()
        if memory_tokens < 0:
            raise ValueError(f"memory_tokens must be at least 0, got {memory_tokens}")
        if memory_tokens and segment_length < 1:
            raise ValueError(f"segment_length must be at least 1, got {segment_length}")
        if memory_tokens and (gate_heads < 0 or (gate_heads and d_model % gate_heads)):
            raise ValueError(f"gate_heads must be 0 or divide the width {d_model}, got {gate_heads}")
        self.memory_tokens, self.segment_length = memory_tokens, segment_length
        self.initial: nn.Parameter | None = None
        self.write_offset: nn.Parameter | None = None
        self.gate: RetentionGate | None = None
        if memory_tokens:
            self.initial = nn.Parameter(0.02 * torch.randn(memory_tokens, d_model))
            # Attention without positions would not tell read from write tokens: this does.
            self.write_offset = nn.Parameter(0.02 * torch.randn(memory_tokens, d_model))
            if gate_heads:
                self.gate = RetentionGate(RateConfig(d_model=d_model, num_heads=1, gate_heads=gate_heads))

    def forward(
        self,
        tokens: Tensor,
        transform: Transform,
        timesteps: Tensor,
        real: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Reads a window.

        Args:
            tokens: ``[B, L, P, d]``, embedded.
            transform: the transformer.
            timesteps: int64 ``[B, L]``, the step of the episode; those of padding are not read.
            real: bool ``[B, L]``, False for padding, on either side; None means that there is none.
            memory: ``[B, m, d]`` from an earlier window that these continue; a row whose first real step is an
                episode's first does not take it. None starts from the learned memory.

        Returns:
            ``[B, L, P, d]``, which means something for real steps only, and the memory ``[B, m, d]`` after the last
            segment that each row's window completes, None without memory tokens.
        """
        batch, steps, per_step, _ = tokens.shape
        rows = torch.arange(batch, device=tokens.device)[:, None]
        if real is None:
            start = timesteps.new_zeros(batch)
            column = torch.arange(steps, device=tokens.device).expand(batch, steps)
        else:
            start, column = padding_first(real)
        if not self.memory_tokens:
            if real is None:
                x = tokens.flatten(1, 2)
                return transform(x, SegmentLayout(write_memory=False), None).unflatten(1, (steps, -1)), None
            x = torch.empty_like(tokens).index_put((rows, column), tokens).flatten(1, 2)
            hidden = transform(x, SegmentLayout(write_memory=False), per_step * start)
            return hidden.unflatten(1, (steps, -1))[rows, column], None
        first = timesteps.gather(1, self._first_real(real, timesteps))[:, 0]
        # The first real step goes to its place in its segment; padding falls off the front of the grid.
        offset = first % self.segment_length
        column = column + (offset - start)[:, None]
        segments = self._segments(steps, offset + steps - start)
        grid = tokens.new_zeros(batch, segments * self.segment_length, *tokens.shape[2:])
        kept = column if real is None else torch.where(real, column, grid.shape[1] - 1)
        if real is None:
            grid = grid.index_put((rows, kept), tokens)
        else:
            inside = tokens.where(real[:, :, None, None], tokens.new_zeros(()))
            grid = grid.index_put((rows, kept), inside, accumulate=True)
        hidden, memory = self._read(grid, transform, offset, offset + steps - start, first, memory)
        return hidden[rows, kept], memory

    def _first_real(self, real: Tensor | None, timesteps: Tensor) -> Tensor:
        if real is None:
            return timesteps.new_zeros(len(timesteps), 1)
        return real.to(torch.int64).argmax(1, keepdim=True)

    def _segments(self, steps: int, end: Tensor) -> int:
        """How many segments hold the window: the most it can need where values are not to be read."""
        if torch.compiler.is_compiling():
            return -(-(steps + self.segment_length - 1) // self.segment_length)
        return max(1, -(-int(end.max()) // self.segment_length))

    def _read(
        self,
        grid: Tensor,
        transform: Transform,
        offset: Tensor,
        end: Tensor,
        first: Tensor,
        memory: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Segment by segment: ``grid [B, S K, P, d]``, real from ``offset`` to ``end``."""
        assert self.initial is not None and self.write_offset is not None
        batch, per_step = len(grid), grid.shape[2]
        m, length = self.memory_tokens, self.segment_length
        state = self.initial.expand(batch, -1, -1)
        if memory is not None:
            state = torch.where((first == 0)[:, None, None], state, memory.to(state.dtype))
        layout = SegmentLayout(m)
        read = []
        for index, segment in enumerate(grid.split(length, dim=1)):
            x = torch.cat([state, segment.flatten(1, 2), state + self.write_offset], dim=1)
            key_start = per_step * (offset - index * length).clamp(0, length)
            hidden = transform(x, layout, key_start)
            read.append(hidden[:, m:-m].unflatten(1, (length, per_step)))
            written = hidden[:, -m:, : state.shape[-1]]
            if self.gate is not None:
                written = self.gate(state, written, None)
            # A segment that goes on after the window, or that the window has nothing of, leaves memory as it is.
            complete = (end >= (index + 1) * length) & (offset < (index + 1) * length)
            state = torch.where(complete[:, None, None], written.to(state.dtype), state)
        return torch.cat(read, dim=1), state
