"""The transformer that the Decision Transformer code bases share: GPT-2's blocks, normalised before each part.

Positions are the caller's, added to the embeddings; attention has no relative term here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rate.layers import Dropout
from rate_kernels import SegmentLayout, memory_attention
from rate_kernels.attention.reference import attention_weights

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
}


class Attention(nn.Module):
    """Multi-head attention over a segment with memory tokens, with biases on its projections.

    Attributes:
        scale: factor of all scores; the root of a head's width divides them by default.
    """

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout_p = heads, dropout
        self.scale = (d_model // heads) ** -0.5
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, layout: SegmentLayout, key_start: Tensor | None) -> Tensor:
        """``[B, L, d]`` to ``[B, L, d]``; see :func:`rate_kernels.memory_attention` for the rest."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        dropout_p = self.dropout_p if self.training else 0.0
        out = memory_attention(
            query, key, value, layout, scale=self.scale, dropout_p=dropout_p, key_start=key_start
        )
        return self.output(out.flatten(-2))

    def weights(self, x: Tensor, layout: SegmentLayout, key_start: Tensor | None) -> Tensor:
        """Who attends to whom, without dropout, ``[B, H, L, L]``: computed by the reference, in full."""
        query, key, _ = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return attention_weights(query, key, layout, None, self.scale, key_start)


class FeedForward(nn.Module):
    """``d -> d_inner -> d`` with an activation between."""

    def __init__(self, d_model: int, d_inner: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.into = nn.Linear(d_model, d_inner)
        self.out = nn.Linear(d_inner, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(ACTIVATIONS[self.activation](self.into(x)))


class Block(nn.Module):
    """``x + drop(attention(norm(x)))``, then ``x + drop(feed_forward(norm(x)))``."""

    def __init__(
        self,
        d_model: int,
        heads: int,
        d_inner: int,
        activation: str,
        attention_dropout: float,
        dropout: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model, eps)
        self.attention = Attention(d_model, heads, attention_dropout)
        self.feed_forward_norm = nn.LayerNorm(d_model, eps)
        self.feed_forward = FeedForward(d_model, d_inner, activation)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, layout: SegmentLayout, key_start: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), layout, key_start))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Transformer(nn.Module):
    """A stack of :class:`Block` and the norm after the last.

    Args:
        d_model: width.
        layers: number of blocks.
        heads: must divide ``d_model``.
        d_inner: hidden width of the feed-forward part.
        activation: one of ``ACTIVATIONS``.
        attention_dropout: on attention weights.
        dropout: on what each part adds.
        eps: of the norms.

    Raises:
        ValueError: for a number of heads or an activation that does not fit.
    """

    def __init__(
        self,
        d_model: int,
        layers: int,
        heads: int,
        d_inner: int,
        activation: str = "relu",
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if heads < 1 or d_model % heads:
            raise ValueError(f"the number of heads must divide the width {d_model}, got {heads}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.blocks = nn.ModuleList(
            Block(d_model, heads, d_inner, activation, attention_dropout, dropout, eps) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(d_model, eps)

    def forward(self, x: Tensor, layout: SegmentLayout, key_start: Tensor | None = None) -> Tensor:
        """``x [B, m + n (+ m), d]``; ``key_start`` int ``[B]``, segment tokens before it are padding."""
        for block in self.blocks:
            x = block(x, layout, key_start)
        return self.norm(x)
