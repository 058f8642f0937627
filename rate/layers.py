"""The layers of the transformer: attention, feed-forward, GTrXL gating, and how a block joins them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rate.config import RateConfig
from rate_kernels import GateParameters, RelativePosition, SegmentLayout, memory_attention, retention_gate
from rate_kernels.attention.reference import attention_weights
from rate_kernels.dropout import keep_mask


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` with masks that are cheap to draw on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        return x * keep_mask(x.shape, self.p, x)


class Attention(nn.Module):
    """Multi-head memory-token attention with its projections."""

    def __init__(self, config: RateConfig) -> None:
        super().__init__()
        inner = config.num_heads * config.d_head
        self.heads, self.d_head, self.shift = config.num_heads, config.d_head, config.shift
        self.dropout_p = config.attention_dropout
        self.qkv = nn.Linear(config.d_model, 3 * inner, bias=False)
        self.position = nn.Linear(config.d_model, inner, bias=False)
        self.output = nn.Linear(inner, config.d_model, bias=False)

    def forward(
        self,
        x: Tensor,
        cache: Tensor,
        content_bias: Tensor,
        position_bias: Tensor,
        layout: SegmentLayout,
        key_start: Tensor | None,
        backend: str | None,
    ) -> Tensor:
        """``x [B, Lq, d]`` attends to ``cache [B, c, d]`` and itself: ``[B, Lq, d]``."""
        query, key, value, position = self._projected(x, cache, content_bias, position_bias)
        dropout_p = self.dropout_p if self.training else 0.0
        out = memory_attention(
            query, key, value, layout, position, dropout_p=dropout_p, key_start=key_start, backend=backend
        )
        return self.output(out.flatten(-2))

    def weights(
        self,
        x: Tensor,
        cache: Tensor,
        content_bias: Tensor,
        position_bias: Tensor,
        layout: SegmentLayout,
        key_start: Tensor | None,
        backend: str | None,
    ) -> Tensor:
        """How much every row takes from every key in :meth:`forward` with the same arguments: ``[B, H, Lq, c + Lq]``.

        A row's sum is 1. ``backend`` is not asked: only the reference has the weights.
        """
        query, key, _, position = self._projected(x, cache, content_bias, position_bias)
        return attention_weights(query, key, layout, position, self.d_head**-0.5, key_start)

    def _projected(
        self, x: Tensor, cache: Tensor, content_bias: Tensor, position_bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, RelativePosition]:
        query, key, value = (
            F.linear(x, part).unflatten(-1, (self.heads, self.d_head)) for part in self.qkv.weight.chunk(3)
        )
        if cache.shape[1]:
            inner = self.heads * self.d_head
            cached = F.linear(cache, self.qkv.weight[inner:]).unflatten(-1, (2, self.heads, self.d_head))
            key = torch.cat([cached[:, :, 0], key], dim=1)
            value = torch.cat([cached[:, :, 1], value], dim=1)
        # Under autocast the projections come out in the lower precision while parameters stay in theirs.
        position = RelativePosition(
            self.position.weight.unflatten(0, (self.heads, self.d_head)).to(query.dtype),
            content_bias.to(query.dtype),
            position_bias.to(query.dtype),
            self.shift,
        )
        return query, key, value, position


class FeedForward(nn.Sequential):
    """``d -> d_inner -> d`` with a rectifier between and dropout after each."""

    def __init__(self, config: RateConfig) -> None:
        super().__init__(
            nn.Linear(config.d_model, config.d_inner),
            nn.ReLU(),
            Dropout(config.dropout),
            nn.Linear(config.d_inner, config.d_model),
            Dropout(config.dropout),
        )


class GatedResidual(nn.Module):
    """GTrXL's gated recurrent unit in place of ``x + y`` (arXiv 1910.06764, "Gated-Recurrent-Unit-type gating").

    ``r = s(W_r y + U_r x)``, ``z = s(W_z y + U_z x - b)``, ``h = tanh(W_g y + U_g (r x))``, ``(1 - z) x + z h``.
    The bias b starts at 2, so that a new layer is close to the identity.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.from_update = nn.Linear(d_model, 3 * d_model, bias=False)  # W_r, W_z, W_g
        self.from_stream = nn.Linear(d_model, 2 * d_model, bias=False)  # U_r, U_z
        self.from_reset = nn.Linear(d_model, d_model, bias=False)  # U_g
        self.bias = nn.Parameter(torch.full((d_model,), 2.0))

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        w_r, w_z, w_g = self.from_update(update).chunk(3, dim=-1)
        u_r, u_z = self.from_stream(stream).chunk(2, dim=-1)
        reset = torch.sigmoid(w_r + u_r)
        mix = torch.sigmoid(w_z + u_z - self.bias)
        candidate = torch.tanh(w_g + self.from_reset(reset * stream))
        return torch.lerp(stream, candidate.to(stream.dtype), mix.to(stream.dtype))


class RetentionGate(nn.Module):
    """The memory retention valve with its parameters; see :func:`rate_kernels.retention_gate`."""

    def __init__(self, config: RateConfig) -> None:
        super().__init__()
        self.heads, self.activation = config.gate_heads, config.gate_activation
        self.query = nn.Linear(config.d_model, config.d_model)
        self.key = nn.Linear(config.d_model, config.d_model)
        self.value = nn.Linear(config.d_model, config.d_model)
        self.output = nn.Linear(config.d_model, config.d_model)

    def forward(self, memory: Tensor, update: Tensor, backend: str | None) -> Tensor:
        maps = (self.query, self.key, self.value, self.output)
        parameters = GateParameters(*(x for layer in maps for x in (layer.weight, layer.bias)))
        kept = retention_gate(
            memory, update, parameters, num_heads=self.heads, activation=self.activation, backend=backend
        )
        return kept.to(memory.dtype)  # autocast may have lowered it


class PreNormBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``; with gating, GTrXL's units for both sums."""

    def __init__(self, config: RateConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.attention = Attention(config)
        self.dropout = Dropout(config.dropout)
        self.attention_gate = GatedResidual(config.d_model) if config.gating else None
        self.has_feed_forward = config.d_inner > 0
        if self.has_feed_forward:
            self.feed_forward_norm = nn.LayerNorm(config.d_model)
            self.feed_forward = FeedForward(config)
            self.feed_forward_gate = GatedResidual(config.d_model) if config.gating else None

    def forward(self, x: Tensor, cache: Tensor, *attention_arguments) -> Tensor:  # type: ignore[no-untyped-def]
        normed_cache = self.attention_norm(cache) if cache.shape[1] else cache
        y = self.dropout(self.attention(self.attention_norm(x), normed_cache, *attention_arguments))
        x = x + y if self.attention_gate is None else self.attention_gate(x, F.relu(y))
        if self.has_feed_forward:
            y = self.feed_forward(self.feed_forward_norm(x))
            x = x + y if self.feed_forward_gate is None else self.feed_forward_gate(x, F.relu(y))
        return x


class PublishedBlock(nn.Module):
    """The published layer: the residual twice, ``norm(2 x + attention(x))``, then ``norm(x + feed_forward(x))``."""

    def __init__(self, config: RateConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.dropout = Dropout(config.dropout)
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.has_feed_forward = config.d_inner > 0
        if self.has_feed_forward:
            self.feed_forward = FeedForward(config)
            self.feed_forward_norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, cache: Tensor, *attention_arguments) -> Tensor:  # type: ignore[no-untyped-def]
        x = self.attention_norm(2 * x + self.dropout(self.attention(x, cache, *attention_arguments)))
        if self.has_feed_forward:
            x = self.feed_forward_norm(x + self.feed_forward(x))
        return x


class PublishedGatedBlock(nn.Module):
    """The published GTrXL layer: two norms before attention (one for the cache), and a residual inside it."""

    def __init__(self, config: RateConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.inner_norm = nn.LayerNorm(config.d_model)
        self.attention = Attention(config)
        self.dropout = Dropout(config.dropout)
        self.attention_gate = GatedResidual(config.d_model)
        self.feed_forward_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = FeedForward(config)
        self.feed_forward_gate = GatedResidual(config.d_model)

    def forward(self, x: Tensor, cache: Tensor, *attention_arguments) -> Tensor:  # type: ignore[no-untyped-def]
        normed = self.attention_norm(x)
        attended = self.attention(self.inner_norm(normed), self.inner_norm(cache), *attention_arguments)
        x = self.attention_gate(x, F.relu(normed + self.dropout(attended)))
        return self.feed_forward_gate(x, F.relu(self.feed_forward(self.feed_forward_norm(x))))


def transformer_block(config: RateConfig) -> nn.Module:
    """One layer of the kind the configuration asks for."""
    if config.block == "pre_norm":
        return PreNormBlock(config)
    return PublishedGatedBlock(config) if config.gating else PublishedBlock(config)
