"""Hidden states and attention weights of a transformer, on request, beside what it is run for."""

from __future__ import annotations

import torch
from torch import Tensor

from rate.compat.transformer import Block, Transformer
from rate.compat.windows import padding_first
from rate_kernels import SegmentLayout


class Recording:
    """A transform for :class:`rate.compat.windows.WindowMemory` that runs a transformer and keeps what is asked for.

    Hidden states of all layers leave it as more features of each token, so that they find their way back to the
    window's order with it; attention weights are kept, one call per segment.
    """

    def __init__(self, transformer: Transformer, hidden_states: bool, attentions: bool) -> None:
        self.transformer = transformer
        self.keeps_hidden, self.keeps_weights = bool(hidden_states), bool(attentions)
        self.with_memory = False
        self.weights: list[list[Tensor]] = [[] for _ in transformer.blocks]  # by layer, then by call

    def __call__(self, x: Tensor, layout: SegmentLayout, key_start: Tensor | None) -> Tensor:
        if not (self.keeps_hidden or self.keeps_weights):
            return self.transformer(x, layout, key_start)
        states, self.with_memory = [], layout.num_memory > 0
        for block, weights in zip(self.transformer.blocks, self.weights, strict=True):
            assert isinstance(block, Block)
            states.append(x)
            if self.keeps_weights:
                weights.append(block.attention.weights(block.attention_norm(x), layout, key_start))
            x = block(x, layout, key_start)
        x = self.transformer.norm(x)
        return torch.cat([x, *states], dim=-1) if self.keeps_hidden else x

    def hidden_states(self, read: Tensor) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """From what was read, ``[B, K, P, d or more]``: the last hidden states, and all, ``[B, K P, d]`` each."""
        if not self.keeps_hidden:
            return read, None
        last, *states = read.chunk(len(self.weights) + 1, dim=-1)
        return last, tuple(state.flatten(1, 2) for state in (*states, last))

    def attentions(self, real: Tensor | None) -> tuple[Tensor, ...] | None:
        """By layer: ``[B, S, H, L, L]`` of S segments with memory; without, ``[B, H, K P, K P]`` in the window's order.

        Args:
            real: bool ``[B, K]`` as the window was read with.
        """
        if not self.keeps_weights:
            return None
        if self.with_memory:
            return tuple(torch.stack(calls, dim=1) for calls in self.weights)
        layers = [calls[0] for calls in self.weights]
        if real is None:
            return tuple(layers)
        per_step = layers[0].shape[-1] // real.shape[1]
        _, place = padding_first(real.repeat_interleave(per_step, dim=1))
        return tuple(taken_from(weights, place) for weights in layers)


def taken_from(weights: Tensor, place: Tensor) -> Tensor:
    """``weights [B, H, L, L]`` with rows and columns taken from ``place [B, L]``."""
    rows = weights.gather(2, place[:, None, :, None].expand_as(weights))
    return rows.gather(3, place[:, None, None, :].expand_as(weights))
