"""Memory-token attention with what PyTorch offers, from projected queries, keys and values.

All take ``query [B, Lq, H, d_head]``, ``key, value [B, Lk, H, d_head]``, the layout, ``W [H, d_head, d_pos]``, ``u``
and ``v [H, d_head]``, and return ``[B, Lq, H, d_head]``, as :func:`rate_kernels.memory_attention` does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from bench.baselines.published_attention import relative_shift
from rate_kernels import SegmentLayout
from rate_kernels.attention.position import RelativePosition, key_table, position_query, rotate, sinusoids

Attention = Callable[[Tensor, Tensor, Tensor, SegmentLayout, Tensor, Tensor, Tensor], Tensor]


@functools.lru_cache(maxsize=8)
def _hidden(layout: SegmentLayout, tokens: int, device: torch.device) -> Tensor:
    return ~layout.mask(tokens, device)


def published(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: SegmentLayout,
    weight: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    *,
    host_copies: bool = True,
) -> Tensor:
    """The published formulation: whole score matrices, the position's shifted, sequence first.

    ``host_copies`` keeps the wait for the host to look at the mask and the copy of the weights to it. Tokens ahead
    get what the published shift leaves there.
    """
    q, k, v = (x.transpose(0, 1) for x in (query, key, value))  # [L, B, H, d_head], as its model keeps them
    lq, lk, d_head = q.shape[0], k.shape[0], q.shape[-1]
    hidden = _hidden(layout, layout.segment_tokens(lq), q.device)[:, :, None, None]
    distances = torch.arange(lk - 1, -1, -1, device=q.device)
    r = torch.einsum("tp,hdp->thd", torch.cat(sinusoids(distances, weight.shape[-1], q.dtype), -1), weight)
    content = torch.einsum("ibhd,jbhd->ijbh", q + content_bias, k)
    position = relative_shift(torch.einsum("ibhd,jhd->ijbh", q + position_bias, r))
    score = (content + position) * d_head**-0.5
    if not host_copies or hidden.any().item():
        score = score.float().masked_fill(hidden, -torch.inf).type_as(score)
    probability = torch.softmax(score, dim=1)
    if host_copies:
        probability.detach().cpu()
    return torch.einsum("ijbh,jbhd->ibhd", probability, v).transpose(0, 1)


def published_without_host_copies(*arguments: Tensor | SegmentLayout) -> Tensor:
    """:func:`published` with neither the copies nor the wait."""
    return published(*arguments, host_copies=False)  # type: ignore[arg-type]


def position_bias_matrix(
    query: Tensor, layout: SegmentLayout, weight: Tensor, position_bias: Tensor
) -> Tensor:
    """``(q_i + v) . W e(i - j)`` for all pairs, at true distances: ``[B, H, Lq, Lk]``, by one product and a shift.

    Row i of the product by distance, farthest first, begins ``Lq - 1 - i`` columns later than the row of the result;
    taking every row one element shorter than it is moves it there.
    """
    lq, lk = query.shape[1], query.shape[1] + layout.cache_len
    distances = torch.arange(lk - 1, -lq, -1, device=query.device)
    table = torch.cat(sinusoids(distances, weight.shape[-1], query.dtype), -1)
    keys = torch.matmul(weight, table.t())  # [H, d_head, T]
    by_distance = torch.matmul((query + position_bias).transpose(1, 2), keys)
    columns = by_distance.shape[-1] - 1
    return by_distance.flatten(-2)[..., lq - 1 : -1].unflatten(-1, (lq, columns))[..., :lk]


def sdpa_with_bias(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: SegmentLayout,
    weight: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
) -> Tensor:
    """``scaled_dot_product_attention`` with the position scores as a materialised ``attn_mask``."""
    scale = query.shape[-1] ** -0.5
    hidden = _hidden(layout, layout.segment_tokens(query.shape[1]), query.device)
    bias = position_bias_matrix(query, layout, weight, position_bias) * scale
    bias = bias.masked_fill(hidden, -torch.inf)
    q, k, v = (x.transpose(1, 2) for x in (query + content_bias, key, value))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale).transpose(1, 2)


def _separable(
    query: Tensor, key: Tensor, layout: SegmentLayout, position: RelativePosition
) -> tuple[Tensor, Tensor]:
    """``[q + u ; q~]`` and ``[k ; phi]``, ``[B, H, L, d_head + d_pos]``."""
    heads_first = query.permute(2, 0, 1, 3)
    halves = position_query(heads_first, position)
    rotated = rotate(halves, layout.cache_len).transpose(0, 1)
    table = key_table(key.shape[1], halves.shape[-1], halves.dtype, halves.device)
    q = torch.cat([(query + position.content_bias).transpose(1, 2), rotated], -1)
    k = key.transpose(1, 2)
    return q, torch.cat([k, table.expand(*k.shape[:2], -1, -1)], -1)


def sdpa_separable(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: SegmentLayout,
    weight: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
) -> Tensor:
    """``scaled_dot_product_attention`` on separable queries and keys; only the rule who sees whom is a mask."""
    q, k = _separable(query, key, layout, RelativePosition(weight, content_bias, position_bias))
    visible = ~_hidden(layout, layout.segment_tokens(query.shape[1]), query.device)
    out = F.scaled_dot_product_attention(
        q, k, value.transpose(1, 2), attn_mask=visible, scale=query.shape[-1] ** -0.5
    )
    return out.transpose(1, 2)


# --- FlexAttention --------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def _block_mask(layout: SegmentLayout, queries: int, keys: int, device: torch.device) -> BlockMask:
    visible = layout.mask(layout.segment_tokens(queries), device)
    return create_block_mask(lambda b, h, i, j: visible[i, j], None, None, queries, keys, device=str(device))


def flex_with_bias(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: SegmentLayout,
    weight: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    *,
    flex: Callable[..., Tensor] = flex_attention,
) -> Tensor:
    """FlexAttention whose ``score_mod`` reads the position scores from a captured matrix."""
    scale = query.shape[-1] ** -0.5
    bias = position_bias_matrix(query, layout, weight, position_bias) * scale
    q, k, v = (x.transpose(1, 2) for x in (query + content_bias, key, value))
    mask = _block_mask(layout, q.shape[2], k.shape[2], q.device)
    out = flex(q, k, v, score_mod=lambda s, b, h, i, j: s + bias[b, h, i, j], block_mask=mask, scale=scale)
    return out.transpose(1, 2)


def flex_separable(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: SegmentLayout,
    weight: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    *,
    flex: Callable[..., Tensor] = flex_attention,
) -> Tensor:
    """FlexAttention on separable queries and keys, padded to a power of two; values keep their width."""
    q, k = _separable(query, key, layout, RelativePosition(weight, content_bias, position_bias))
    missing = (1 << (q.shape[-1] - 1).bit_length()) - q.shape[-1]
    mask = _block_mask(layout, q.shape[2], k.shape[2], q.device)
    q, k = F.pad(q, (0, missing)), F.pad(k, (0, missing))
    out = flex(q, k, value.transpose(1, 2), block_mask=mask, scale=query.shape[-1] ** -0.5)
    return out.transpose(1, 2)
