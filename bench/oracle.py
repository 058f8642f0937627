"""Attention in float64, at chosen rows: what every variant is checked against before it is timed.

Rows are independent, and with an upstream gradient that is zero elsewhere so are the gradients. So a few rows check
out and every gradient at any length, without a score matrix of the whole segment.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rate_kernels import SegmentLayout
from rate_kernels.attention.position import sinusoids

_ROWS = 24


def checked_rows(layout: SegmentLayout, tokens: int, memory: bool) -> list[int]:
    """Query rows: the first, last and some between of the segment, and of both memory blocks if ``memory``."""
    m, length = layout.num_memory, layout.query_length(tokens)
    step = max(1, tokens // _ROWS)
    rows = {m, *range(m, m + tokens, step), m + tokens - 1}
    if memory and m:
        rows |= {0, m - 1}
        if layout.num_write:
            rows |= {length - m, length - 1}
    return sorted(rows)


def attention_rows(leaves: list[Tensor], layout: SegmentLayout, rows: list[int]) -> Tensor:
    """Output of ``rows``, ``[B, len(rows), H, d_head]``, at true (signed) distances.

    Args:
        leaves: query, key, value, W, u, v as :func:`rate_kernels.memory_attention` takes them, float64.
    """
    query, key, value, weight, content_bias, position_bias = leaves
    lq, lk, c = query.shape[1], key.shape[1], layout.cache_len
    at = torch.tensor(rows, device=query.device)
    asked = query[:, at]
    distances = torch.arange(1 - lq, lk, device=query.device)
    table = torch.cat(sinusoids(distances, weight.shape[-1], query.dtype), -1) @ weight.transpose(1, 2)
    by_distance = torch.einsum("bihd,htd->bhit", asked + position_bias, table)  # table: [H, T, d_head]
    distance = at[:, None] + c - torch.arange(lk, device=query.device)
    position = by_distance.gather(-1, (distance + lq - 1).expand(*by_distance.shape[:2], -1, -1))
    content = torch.einsum("bihd,bjhd->bhij", asked + content_bias, key)
    visible = layout.mask(layout.segment_tokens(lq), query.device)[at]
    scores = ((content + position) * query.shape[-1] ** -0.5).masked_fill(~visible, -torch.inf)
    return torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value)
