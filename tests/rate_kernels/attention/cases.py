"""Random attention problems, and the textbook form of the relative shift."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rate_kernels import RelativePosition, SegmentLayout, memory_attention


@dataclass
class Case:
    """Leaves of a problem; ``run`` computes it with some backend."""

    layout: SegmentLayout
    shift: str
    leaves: dict[str, Tensor]
    key_start: Tensor | None = None

    def run(self, backend: str | None, **options) -> Tensor:
        position = RelativePosition(
            self.leaves["weight"], self.leaves["content_bias"], self.leaves["position_bias"], self.shift
        )
        return memory_attention(
            *(self.leaves[name] for name in ("query", "key", "value")),
            self.layout,
            position,
            key_start=self.key_start,
            backend=backend,
            **options,
        )

    def run_with_gradients(self, backend: str | None, **options) -> list[Tensor]:
        out = self.run(backend, **options)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        return [out, *torch.autograd.grad((out * weights).sum(), list(self.leaves.values()))]


def make(
    layout: SegmentLayout,
    n: int,
    *,
    batch: int = 2,
    heads: int = 3,
    d_head: int = 4,
    d_pos: int = 6,
    shift: str = "signed",
    dtype: torch.dtype = torch.float64,
    padded: bool = False,
) -> Case:
    generator = torch.Generator().manual_seed(n + 7 * layout.num_memory + 31 * layout.cache_len)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    lq, lk = layout.query_length(n), layout.key_length(n)
    leaves = {
        "query": leaf(batch, lq, heads, d_head),
        "key": leaf(batch, lk, heads, d_head),
        "value": leaf(batch, lk, heads, d_head),
        "weight": leaf(heads, d_head, d_pos),
        "content_bias": leaf(heads, d_head),
        "position_bias": leaf(heads, d_head),
    }
    key_start = torch.arange(batch) * max(1, n // 2) if padded else None
    return Case(layout, shift, leaves, key_start)


def shift_and_add(case: Case) -> Tensor:
    """The textbook computation: score every query against every distance, shift row i by i, add, mask, softmax.

    The shift is the usual one (a column of zeros in front, the matrix read anew with its rows one longer), so that it
    leaves in cells ahead what the published code leaves there.
    """
    layout = case.layout
    query, key, value = (case.leaves[name] for name in ("query", "key", "value"))
    weight, u, v = (case.leaves[name] for name in ("weight", "content_bias", "position_bias"))
    (batch, lq, heads, d_head), lk = query.shape, key.shape[1]
    d_pos = weight.shape[-1]
    distance = torch.arange(lk - 1, -1, -1, dtype=query.dtype)
    omega = 10000.0 ** (-torch.arange(0, d_pos, 2, dtype=query.dtype) / d_pos)
    angles = distance[:, None] * omega
    table = torch.cat([angles.sin(), angles.cos()], dim=-1)
    relative = torch.einsum("hdp,tp->thd", weight, table)
    content = torch.einsum("bihd,bjhd->bhij", query + u, key)
    position = torch.einsum("bihd,thd->bhit", query + v, relative)
    padded = torch.cat([position.new_zeros(batch, heads, lq, 1), position], dim=-1)
    position = padded.view(batch, heads, lk + 1, lq)[:, :, 1:].reshape(batch, heads, lq, lk)
    scores = (content + position) / d_head**0.5
    scores = scores.masked_fill(~layout.mask(layout.segment_tokens(lq)), -torch.inf)
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value)
