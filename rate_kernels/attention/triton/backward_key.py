"""Second kernel of the backward pass: what keys and values receive, one program per tile of keys.

    loop       tiles of query rows: content, rotated (made again, or read where the first kernel stored them), the
               weights again from the statistics;  d_value += P^T gradient,  d_key += dS^T content

Scores are held transposed, keys along the rows, so that no product needs a transposed tile of weights. Tiles of rows
that see none of these keys are skipped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from rate_kernels.attention.triton.forward import LENGTHS
from rate_kernels.attention.triton.tile import (
    LOG2_E,
    Dropout,
    Lengths,
    add_inner,
    add_product,
    content_query,
    dropped,
    keep,
    load_angles,
    load_rows,
    parameters_of,
    rotated_query,
    store_rows,
    wrapped_angles,
)
from rate_kernels.attention.triton.visibility import hidden_keys, loop_bounds, masked_tile, seeing_rows


class Rows(NamedTuple):
    """Addresses of one head's queries and output gradients, strides of their rows, and of what is kept per row."""

    query: Any
    gradient: Any
    query_row: Any
    gradient_row: Any
    statistics: Any
    delta: Any
    rotated: Any


class Tile(NamedTuple):
    """This program's keys: key and value, their angles, and first row and end of the rows that see each."""

    key: Any
    value: Any
    cosine: Any
    sine: Any
    first: Any
    end: Any


@triton.jit(do_not_specialize=LENGTHS)
def attention_backward_key(
    query,
    key,
    value,
    weight,
    content_bias,
    position_bias,
    phi,
    angles,
    key_start,
    seed,
    statistics,
    gradient,
    delta,
    d_key,
    d_value,
    rotated,
    query_batch,
    query_row,
    query_head,
    key_batch,
    key_row,
    key_head,
    value_batch,
    value_row,
    value_head,
    gradient_batch,
    gradient_row,
    gradient_head,
    heads,
    num_memory,
    segment_end,
    cache_len,
    query_rows,
    key_rows,
    threshold,
    static: tl.constexpr,
):
    """Writes ``d_key`` and ``d_value``."""
    tiles = (key_rows + static.block_k - 1) // static.block_k
    group = tl.program_id(0) // tiles
    keys_begin = tl.program_id(0) % tiles * static.block_k  # the first keys are seen by the most rows
    batch, head = (group // heads).to(tl.int64), (group % heads).to(tl.int64)
    keys = keys_begin + tl.arange(0, static.block_k)
    dims = tl.arange(0, static.width)
    inside = keys < key_rows
    parameters = parameters_of(head, weight, content_bias, position_bias, angles, static)
    lengths = Lengths(num_memory, segment_end, cache_len, query_rows, key_rows)
    dropout = Dropout(seed, group, threshold)
    per_row = group.to(tl.int64) * query_rows
    source = Rows(
        query + batch * query_batch + head * query_head,
        gradient + batch * gradient_batch + head * gradient_head,
        query_row,
        gradient_row,
        statistics + per_row,
        delta + per_row,
        rotated + per_row * 2 * static.half,
    )

    key += batch * key_batch + head * key_head
    value += batch * value_batch + head * value_head
    key_tile = load_rows(key, keys_begin, key_rows, key_row, dims, static.block_k, static.d_head, True)
    value_tile = load_rows(value, keys_begin, key_rows, value_row, dims, static.block_k, static.d_head, True)
    cosine, sine = key_tile, key_tile
    if static.position:
        cosine, sine = load_angles(phi, keys_begin, key_rows, static, static.block_k, True)
    first, end = seeing_rows(keys, lengths, static)
    if static.padded:
        hidden_begin, hidden_end = hidden_keys(key_start, batch, lengths, static)
        hidden = (keys >= hidden_begin) & (keys < hidden_end)
        first, end = tl.where(hidden, query_rows, first), tl.where(hidden, 0, end)
    own = Tile(key_tile, value_tile, cosine, sine, first, end)

    plain_begin = 0
    if static.published:  # a plain tile of rows must not see any of these keys ahead of it
        plain_begin = keys_begin + static.block_k - 1 - cache_len
    begin, before, plain, masked = loop_bounds(
        first, end, inside, query_rows, plain_begin, query_rows, static.block_q
    )
    d_key_tile = tl.zeros([static.block_k, static.width], static.acc)
    d_value_tile = tl.zeros([static.block_k, static.width], static.acc)
    for tile in range(0, plain):
        rows_begin = begin + (before + tile) * static.block_q
        d_key_tile, d_value_tile = _visit(
            rows_begin, d_key_tile, d_value_tile, own, source, keys_begin, phi, parameters, dropout, lengths,
            static, False,
        )  # fmt: skip
    for tile in range(0, masked):
        rows_begin = begin + masked_tile(tile, before, plain) * static.block_q
        d_key_tile, d_value_tile = _visit(
            rows_begin, d_key_tile, d_value_tile, own, source, keys_begin, phi, parameters, dropout, lengths,
            static, True,
        )  # fmt: skip

    dense = (batch * key_rows * heads + head) * static.d_head
    row_stride = heads * static.d_head
    store_rows(
        d_key + dense, keys_begin, key_rows, row_stride, dims, d_key_tile * static.scale, static.d_head
    )
    store_rows(d_value + dense, keys_begin, key_rows, row_stride, dims, d_value_tile, static.d_head)


@triton.jit
def _visit(
    rows_begin, d_key_tile, d_value_tile, own, source, keys_begin, phi, parameters, dropout, lengths,
    static: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """What the rows from ``rows_begin`` on give to the keys and values."""
    rows = rows_begin + tl.arange(0, static.block_q)
    dims = tl.arange(0, static.width)
    content = content_query(source.query, rows_begin, source.query_row, parameters, lengths, static, MASKED)
    scores = _scores(rows_begin, content, own, source, keys_begin, phi, parameters, lengths, static, MASKED)
    if MASKED:
        inside = rows < lengths.query_rows
        logarithm = tl.load(source.statistics + rows, mask=inside, other=float("inf"))
        delta = tl.load(source.delta + rows, mask=inside, other=0.0)
    else:
        logarithm = tl.load(source.statistics + rows)
        delta = tl.load(source.delta + rows)
    weights = tl.exp2(scores * (static.scale * LOG2_E) - logarithm[None, :])
    if MASKED:
        seen = (rows[None, :] >= own.first[:, None]) & (rows[None, :] < own.end[:, None])
        weights = tl.where(seen, weights, 0.0)
    gradient = load_rows(
        source.gradient,
        rows_begin,
        lengths.query_rows,
        source.gradient_row,
        dims,
        static.block_q,
        static.d_head,
        MASKED,
    )
    d_weights = add_inner(own.value, gradient, tl.zeros([static.block_k, static.block_q], static.acc), static)
    after_dropout = weights
    if static.dropout:
        kept = tl.trans(keep(dropout, rows, keys_begin, static.block_k).to(tl.int8)) != 0
        after_dropout = dropped(weights, kept, dropout)
        d_weights = dropped(d_weights, kept, dropout)
    d_value_tile = add_product(after_dropout.to(gradient.dtype), gradient, d_value_tile, static)
    d_scores = (weights * (d_weights - delta[None, :])).to(content.dtype)
    return add_product(d_scores, content, d_key_tile, static), d_value_tile


@triton.jit
def _scores(
    rows_begin, content, own, source, keys_begin, phi, parameters, lengths,
    static: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """``tile.raw_scores``, transposed."""
    rows = rows_begin + tl.arange(0, static.block_q)
    scores = add_inner(own.key, content, tl.zeros([static.block_k, static.block_q], static.acc), static)
    if static.position:
        content_scores = scores
        first, second = _rotated(rows_begin, source, parameters, lengths, static, MASKED)
        scores = add_inner(own.sine, second, add_inner(own.cosine, first, scores, static), static)
        if static.published and MASKED:
            if keys_begin + static.block_k > rows_begin + lengths.cache_len + 1:
                keys = keys_begin + tl.arange(0, static.block_k)
                first, second = _rotated(rows_begin + 1, source, parameters, lengths, static, True)
                wrapped_1, wrapped_2 = wrapped_angles(phi, keys_begin, lengths.key_rows, static)
                wrapped = add_inner(wrapped_1, first, content_scores, static)
                wrapped = add_inner(wrapped_2, second, wrapped, static)
                ahead = keys[:, None] - lengths.cache_len - rows[None, :]
                scores = tl.where(ahead >= 2, wrapped, tl.where(ahead == 1, content_scores, scores))
    return scores


@triton.jit
def _rotated(rows_begin, source, parameters, lengths, static: tl.constexpr, GUARD: tl.constexpr):
    """``q~`` of these rows, made again or read."""
    if static.store:
        columns = tl.arange(0, static.half_width)
        base, stride = source.rotated, 2 * static.half
        first = load_rows(
            base, rows_begin, lengths.query_rows, stride, columns, static.block_q, static.half, GUARD
        )
        second = load_rows(
            base + static.half,
            rows_begin,
            lengths.query_rows,
            stride,
            columns,
            static.block_q,
            static.half,
            GUARD,
        )
    else:
        first, second = rotated_query(source.query, rows_begin, source.query_row, parameters, lengths, static)
    return first, second
