"""Memory-token attention in its separable form, on PyTorch's own products.

On a CPU the blocked operator runs (see blocked.py for why); elsewhere ``scaled_dot_product_attention`` with queries
``[q + u ; q~]`` and keys ``[k ; phi]`` does. Both are exact, and neither shifts a matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rate_kernels.attention.blocked import blocked_attention
from rate_kernels.attention.position import (
    RelativePosition,
    ahead_correction,
    key_table,
    position_query,
    rotate,
)
from rate_kernels.dropout import keep_mask
from rate_kernels.segment import SegmentLayout


def memory_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: SegmentLayout,
    position: RelativePosition | None,
    scale: float,
    dropout_p: float,
    key_start: Tensor | None,
) -> Tensor:
    """See :func:`rate_kernels.memory_attention`; arguments are taken as checked."""
    batch, lq, heads, d_head = query.shape
    lk = key.shape[1]
    query, key, value = (x.permute(2, 0, 1, 3).contiguous() for x in (query, key, value))  # [H, B, L, d_head]
    rotated = table = correction = None
    if position is not None:
        halves = position_query(query, position)
        query = query + position.content_bias[:, None, None]
        rotated = rotate(halves, layout.cache_len)
        table = key_table(lk, halves.shape[-1], halves.dtype, halves.device)
        if position.shift == "transformer_xl" and layout.num_memory:
            correction = _correction(halves, layout, lq, lk)
    n = layout.segment_tokens(lq)
    padding = None if key_start is None else layout.key_padding(n, key_start)
    run = _blocked if query.device.type == "cpu" else _fused
    out = run(query, rotated, key, value, table, correction, padding, layout, scale, dropout_p)
    return out.view(heads, batch, lq, d_head).permute(1, 2, 0, 3)


def _correction(halves: Tensor, layout: SegmentLayout, lq: int, lk: int) -> Tensor:
    """``[2, H, B, m, m]``: the read and the write memory's; zeros where there is no write memory."""
    m = layout.num_memory
    read = ahead_correction(halves, slice(0, m), layout.cache_len, lk)
    if not layout.num_write:
        return torch.stack([read, torch.zeros_like(read)])
    return torch.stack([read, ahead_correction(halves, slice(lq - m, lq), layout.cache_len, lk)])


def _blocked(
    query: Tensor,
    rotated: Tensor | None,
    key: Tensor,
    value: Tensor,
    table: Tensor | None,
    correction: Tensor | None,
    padding: Tensor | None,
    layout: SegmentLayout,
    scale: float,
    dropout_p: float,
) -> Tensor:
    groups, lq, lk = query.shape[0] * query.shape[1], query.shape[2], key.shape[2]
    keep = None
    if dropout_p > 0:
        keep = keep_mask(torch.Size((groups, lq, lk)), dropout_p, query)
    inputs = [None if x is None else x.flatten(0, 1) for x in (query, rotated, key, value)]
    if correction is not None:
        correction = correction.flatten(1, 2)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (*inputs, correction))
    numbers = [layout.num_memory, int(layout.write_memory), layout.cache_len, int(layout.read_cache)]
    out, _ = blocked_attention(*inputs, table, correction, keep, padding, numbers, scale, save)
    return out


def _fused(
    query: Tensor,
    rotated: Tensor | None,
    key: Tensor,
    value: Tensor,
    table: Tensor | None,
    correction: Tensor | None,
    padding: Tensor | None,
    layout: SegmentLayout,
    scale: float,
    dropout_p: float,
) -> Tensor:
    lq, n = query.shape[2], layout.segment_tokens(query.shape[2])
    visible = layout.mask(n, query.device)[None, None]
    blind = None
    if padding is not None:
        visible = visible & ~padding[None, :, None, :]
        blind = ~visible.any(-1, keepdim=True)
        visible = visible | blind  # finite everywhere; the blind rows are cleared below
    mask = visible
    if correction is not None:
        m, c = layout.num_memory, layout.cache_len
        bias = query.new_zeros(*query.shape[:3], key.shape[2])
        bias[:, :, :m, c : c + m] = correction[0] * scale
        if layout.num_write:
            bias[:, :, lq - m :, c + lq - m :] = correction[1] * scale
        mask = bias.masked_fill(~visible, -torch.inf)
    if rotated is not None and table is not None:
        query = torch.cat([query, rotated], dim=-1)
        key = torch.cat([key, table.expand(*key.shape[:2], -1, -1)], dim=-1)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout_p, scale=scale)
    return out if blind is None else out.masked_fill(blind, 0.0)
