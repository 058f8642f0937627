"""Separable attention on a CPU: PyTorch's matrix products over blocks of query rows, as one operator.

Three savings over ``scaled_dot_product_attention`` with longer queries and keys, measured in docs/performance.md:
blocks skip the keys that none of their rows see; the position half of the keys is one table shared by all heads and
batch entries, so its product is one large matrix product and has no gradient to compute; the softmax is the only pass
over the scores besides the products.

Heads come first and merge with the batch, ``[G = H * B, L, ...]``, as the matrix products want them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rate_kernels.segment import QueryBlock, SegmentLayout

ROWS = 48
"""Segment rows per block, at most. At 180 tokens, 25 to 75 differed by less than the noise; 180 was clearly slower."""


def _scores(
    block: QueryBlock,
    layout: SegmentLayout,
    query: Tensor,
    rotated: Tensor | None,
    key: Tensor,
    table: Tensor | None,
    correction: Tensor | None,
    padding: Tensor | None,
    scale: float,
) -> Tensor:
    """Scaled and masked scores of one block, ``[G, rows, keys]``."""
    rows, keys = slice(block.start, block.stop), slice(block.key_start, block.key_stop)
    q, k = query[:, rows], key[:, keys].transpose(1, 2)
    if rotated is None or table is None:
        scores = torch.bmm(q, k).mul_(scale)
    else:
        scores = torch.matmul(rotated[:, rows], table[keys].t())
        scores = scores.baddbmm_(q, k, beta=scale, alpha=scale)
    n = layout.segment_tokens(query.shape[1])
    if correction is not None and _is_memory(block, layout, n):
        m = layout.num_memory
        at = layout.cache_len + block.start - block.key_start
        scores[:, :, at : at + m].add_(correction[0 if block.start == 0 else 1], alpha=scale)
    if block.masked_from < block.key_stop:
        visible = layout.mask(n, query.device)[rows, block.masked_from : block.key_stop]
        scores[:, :, block.masked_from - block.key_start :].masked_fill_(~visible, -torch.inf)
    if padding is not None:
        by_head = scores.view(-1, padding.shape[0], *scores.shape[1:])
        by_head.masked_fill_(padding[None, :, None, keys], -torch.inf)
    return scores


def _is_memory(block: QueryBlock, layout: SegmentLayout, n: int) -> bool:
    return block.stop <= layout.num_memory or block.start >= layout.num_memory + n


def _weights(scores: Tensor, may_be_blind: bool) -> Tensor:
    if not may_be_blind:
        return scores.softmax(-1)
    blind = scores.amax(-1, keepdim=True) == -torch.inf
    return scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)


@torch.library.custom_op("rate_kernels::blocked_attention", mutates_args=())
def blocked_attention(
    query: Tensor,
    rotated: Tensor | None,
    key: Tensor,
    value: Tensor,
    table: Tensor | None,
    correction: Tensor | None,
    keep: Tensor | None,
    padding: Tensor | None,
    layout: list[int],
    scale: float,
    save: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Attention of already biased and rotated queries.

    Args:
        query: ``q + u [G, Lq, d_head]``.
        rotated: ``q~ [G, Lq, d_pos]``, or None without positions.
        key: ``[G, Lk, d_head]``.
        value: ``[G, Lk, d_head]``.
        table: ``phi [Lk, d_pos]``, or None.
        correction: ``[2, G, m, m]`` added to the read and write memory's scores of their own block, or None.
        keep: dropout mask ``[G, Lq, Lk]``, already divided by the probability of keeping, or None.
        padding: boolean ``[B, Lk]``, True where a key is padding, or None.
        layout: the four numbers of a :class:`SegmentLayout`.
        scale: factor of all scores.
        save: whether the attention weights are returned, for the backward pass.

    Returns:
        ``out [G, Lq, d_head]`` and, where asked, the attention weights of every block, before dropout.
    """
    plan = _layout(layout)
    out = torch.empty_like(query)
    saved = []
    for block in _blocks(plan, query):
        scores = _scores(block, plan, query, rotated, key, table, correction, padding, scale)
        weights = _weights(scores, padding is not None)
        rows, keys = slice(block.start, block.stop), slice(block.key_start, block.key_stop)
        kept = weights if keep is None else weights * keep[:, rows, keys]
        out[:, rows] = torch.bmm(kept, value[:, keys])
        if save:
            saved.append(weights)
    return out, saved


@blocked_attention.register_fake
def _(query, rotated, key, value, table, correction, keep, padding, layout, scale, save):  # type: ignore[no-untyped-def]
    plan = _layout(layout)
    blocks = _blocks(plan, query) if save else []
    weights = [query.new_empty(query.shape[0], b.stop - b.start, b.key_stop - b.key_start) for b in blocks]
    return torch.empty_like(query), weights


@torch.library.custom_op("rate_kernels::blocked_attention_backward", mutates_args=())
def blocked_attention_backward(
    gradient: Tensor,
    query: Tensor,
    rotated: Tensor | None,
    key: Tensor,
    value: Tensor,
    table: Tensor | None,
    keep: Tensor | None,
    weights: list[Tensor],
    layout: list[int],
    scale: float,
    correct: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, rotated, key, value and correction (empty where there is none)."""
    plan = _layout(layout)
    n = plan.segment_tokens(query.shape[1])
    d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
    d_rotated = query.new_empty(0) if rotated is None else torch.empty_like(rotated)
    m = plan.num_memory
    d_correction = query.new_zeros((2, query.shape[0], m, m) if correct else (0,))
    for block, p in zip(_blocks(plan, query), weights, strict=True):
        rows, keys = slice(block.start, block.stop), slice(block.key_start, block.key_stop)
        g = gradient[:, rows]
        kept = p if keep is None else p * keep[:, rows, keys]
        d_value[:, keys] += torch.bmm(kept.transpose(1, 2), g)
        d_p = torch.bmm(g, value[:, keys].transpose(1, 2))
        if keep is not None:
            d_p.mul_(keep[:, rows, keys])
        d_s = torch.ops.aten._softmax_backward_data(d_p, p, -1, p.dtype).mul_(scale)
        d_query[:, rows] = torch.bmm(d_s, key[:, keys])
        if rotated is not None and table is not None:
            d_rotated[:, rows] = torch.matmul(d_s, table[keys])
        d_key[:, keys] += torch.bmm(d_s.transpose(1, 2), query[:, rows])
        if correct and _is_memory(block, plan, n):
            at = plan.cache_len + block.start - block.key_start
            d_correction[0 if block.start == 0 else 1] = d_s[:, :, at : at + m]
    return d_query, d_rotated, d_key, d_value, d_correction


@blocked_attention_backward.register_fake
def _(gradient, query, rotated, key, value, table, keep, weights, layout, scale, correct):  # type: ignore[no-untyped-def]
    m = layout[0]
    return (
        torch.empty_like(query),
        query.new_empty(0) if rotated is None else torch.empty_like(rotated),
        torch.empty_like(key),
        torch.empty_like(value),
        query.new_empty((2, query.shape[0], m, m) if correct else (0,)),
    )


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    query, rotated, key, value, table, correction, keep, _, layout, scale, save = inputs
    if not save:
        raise RuntimeError("blocked_attention needs save=True where a gradient is wanted")
    ctx.save_for_backward(query, rotated, key, value, table, keep, *output[1])
    ctx.layout, ctx.scale, ctx.correct = layout, scale, correction is not None
    ctx.set_materialize_grads(False)


def _backward(ctx, gradient, _):  # type: ignore[no-untyped-def]
    if gradient is None:
        return (None,) * 11
    query, rotated, key, value, table, keep, *weights = ctx.saved_tensors
    d_query, d_rotated, d_key, d_value, d_correction = blocked_attention_backward(
        gradient.contiguous(),
        query,
        rotated,
        key,
        value,
        table,
        keep,
        weights,
        ctx.layout,
        ctx.scale,
        ctx.correct,
    )
    d_rotated = None if rotated is None else d_rotated
    d_correction = d_correction if ctx.correct else None
    return d_query, d_rotated, d_key, d_value, None, d_correction, None, None, None, None, None


blocked_attention.register_autograd(_backward, setup_context=_setup_context)


def _layout(numbers: list[int]) -> SegmentLayout:
    num_memory, write_memory, cache_len, read_cache = numbers
    return SegmentLayout(num_memory, bool(write_memory), cache_len, bool(read_cache))


def _blocks(layout: SegmentLayout, query: Tensor) -> list[QueryBlock]:
    return layout.query_blocks(layout.segment_tokens(query.shape[1]), ROWS)
