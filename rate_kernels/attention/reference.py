"""Memory-token attention as its equations say it: every score in full, nothing clever. The specification.

s_ij = ((q_i + u) . k_j + (q_i + v) . W e(i - j)) * scale          positions i counted after the cache
out_i = sum_j dropout(softmax_j(s_ij)) v_j                          over the keys that row i may see
"""

from __future__ import annotations

import torch
from torch import Tensor

from rate_kernels.attention.position import RelativePosition, sinusoids
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
    weights = attention_weights(query, key, layout, position, scale, key_start)
    weights = torch.nn.functional.dropout(weights, dropout_p)
    return torch.einsum("bhij,bjhd->bihd", weights, value)


def attention_weights(
    query: Tensor,
    key: Tensor,
    layout: SegmentLayout,
    position: RelativePosition | None,
    scale: float,
    key_start: Tensor | None,
) -> Tensor:
    """``softmax_j(s_ij)``, ``[B, H, Lq, Lk]``, before dropout; zeros in a row that sees nothing."""
    content = query if position is None else query + position.content_bias
    scores = torch.einsum("bihd,bjhd->bhij", content, key)
    if position is not None:
        scores = scores + position_scores(query, layout.cache_len, position)
    n = layout.segment_tokens(query.shape[1])
    visible = layout.mask(n, query.device)[None, None]
    if key_start is not None:
        visible = visible & ~layout.key_padding(n, key_start)[:, None, None, :]
    scores = (scores * scale).masked_fill(~visible, -torch.inf)
    # A row that sees nothing: softmax over finite numbers, then nothing of it is kept.
    blind = ~visible.any(-1, keepdim=True)
    return scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)


def position_scores(query: Tensor, cache_len: int, position: RelativePosition) -> Tensor:
    """``(q_i + v) . W e(i - j)`` for every pair, shift included: ``[B, H, Lq, Lk]``, unscaled."""
    lq, lk = query.shape[1], query.shape[1] + cache_len
    distances = torch.arange(1 - lq, lk + 1, device=query.device)
    table = torch.cat(sinusoids(distances, position.weight.shape[-1], query.dtype), dim=-1)
    keys = torch.einsum("hdp,tp->thd", position.weight, table)  # W e(t) for every distance t
    # by_distance[b, h, i, t]: query i at distance t + 1 - lq
    by_distance = torch.einsum("bihd,thd->bhit", query + position.position_bias, keys)

    rows = torch.arange(lq, device=query.device)[:, None]
    columns = torch.arange(lk, device=query.device)[None, :]
    distance = rows + cache_len - columns
    asked_row, asked_distance = rows.expand(lq, lk), distance
    if position.shift == "transformer_xl":
        wrapped = distance <= -2
        asked_row = torch.where(wrapped, rows + 1, rows)
        asked_distance = torch.where(wrapped, distance + lk + 1, distance)
    result = by_distance[:, :, asked_row, asked_distance + lq - 1]
    if position.shift == "transformer_xl":
        result = result.masked_fill(distance == -1, 0.0)
    return result
