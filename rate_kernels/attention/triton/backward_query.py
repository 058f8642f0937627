"""First kernel of the backward pass: what the queries receive, one program per tile of query rows.

    prologue   content, rotated as in the forward kernel;  delta = sum(out * gradient), stored for the second kernel
    loop       tiles of keys: weights again from the statistics, dS;  d_content += dS k,  d_rotated += dS phi
    epilogue   d_halves = R(i)^T d_rotated, stored for dW;  d_query = d_content + d_halves W^T
               the sums over this tile's rows of both parts, stored for du and dv

With ``shift="transformer_xl"`` a row's rotated query also serves the keys ahead of the row before it; the program reads
that row's tile once more, so that no two programs add to one place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from rate_kernels.attention.triton.forward import LENGTHS
from rate_kernels.attention.triton.tile import (
    LOG2_E,
    Dropout,
    Keys,
    Lengths,
    add_inner,
    add_product,
    content_query,
    dropped,
    keep,
    load_angles,
    load_keys,
    load_queries,
    load_rows,
    load_values,
    load_weight,
    parameters_of,
    raw_scores,
    store_rows,
    wrapped_angles,
)
from rate_kernels.attention.triton.visibility import (
    after_hidden,
    loop_bounds,
    masked_tile,
    reach_of,
    sees,
    visible_keys,
)


class Received(NamedTuple):
    """Per row: the gradient of the output, its product with the output, and the forward pass's statistics."""

    gradient: Any
    delta: Any
    logarithm: Any


class Results(NamedTuple):
    """Gradients of the content and of both halves of the rotated query, so far."""

    content: Any
    rotated_1: Any
    rotated_2: Any


@triton.jit(do_not_specialize=LENGTHS)
def attention_backward_query(
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
    out,
    statistics,
    gradient,
    delta,
    d_query,
    d_halves,
    sums,
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
    """Writes ``delta``, ``d_query``, ``d_halves``, ``sums`` and, if ``store``, ``rotated``."""
    tiles = (query_rows + static.block_q - 1) // static.block_q
    group = tl.program_id(0) // tiles
    tile_index = tiles - 1 - tl.program_id(0) % tiles
    rows_begin = tile_index * static.block_q
    batch, head = (group // heads).to(tl.int64), (group % heads).to(tl.int64)
    rows = rows_begin + tl.arange(0, static.block_q)
    dims, columns = tl.arange(0, static.width), tl.arange(0, static.half_width)
    inside = rows < query_rows
    query += batch * query_batch + head * query_head
    key += batch * key_batch + head * key_head
    value += batch * value_batch + head * value_head
    gradient += batch * gradient_batch + head * gradient_head
    parameters = parameters_of(head, weight, content_bias, position_bias, angles, static)
    lengths = Lengths(num_memory, segment_end, cache_len, query_rows, key_rows)
    source = Keys(key, value, key_row, value_row, phi)
    dropout = Dropout(seed, group, threshold)
    first_row = batch * query_rows * heads + head  # of the dense tensors [B, Lq, H, ...]
    out += first_row * static.d_head
    out_row = heads * static.d_head
    statistics += group.to(tl.int64) * query_rows
    delta += group.to(tl.int64) * query_rows

    received = _receive(gradient, gradient_row, out, out_row, statistics, rows_begin, lengths, static)
    tl.store(delta + rows, received.delta, mask=inside)
    queries = load_queries(query, rows_begin, query_row, parameters, lengths, static)
    if static.store:
        rotated += group.to(tl.int64) * query_rows * 2 * static.half
        store_rows(rotated, rows_begin, query_rows, 2 * static.half, columns, queries.rotated_1, static.half)
        store_rows(
            rotated + static.half,
            rows_begin,
            query_rows,
            2 * static.half,
            columns,
            queries.rotated_2,
            static.half,
        )

    reach, plain_end = reach_of(rows, rows_begin, key_start, batch, lengths, static)
    begin, before, plain, masked = loop_bounds(
        reach.first, reach.end, inside, key_rows, after_hidden(reach), plain_end, static.block_k
    )
    nothing = tl.zeros([static.block_q, static.half_width], static.acc)
    results = Results(tl.zeros([static.block_q, static.width], static.acc), nothing, nothing)
    for tile in range(0, plain):
        keys_begin = begin + (before + tile) * static.block_k
        results = _visit(
            keys_begin, results, queries, received, source, rows, reach, dropout, lengths, static, False
        )
    for tile in range(0, masked):
        keys_begin = begin + masked_tile(tile, before, plain) * static.block_k
        results = _visit(
            keys_begin, results, queries, received, source, rows, reach, dropout, lengths, static, True
        )
        if static.position and static.published:
            if keys_begin + static.block_k > reach.ahead_from:
                content = content_query(query, rows_begin - 1, query_row, parameters, lengths, static, True)
                before_it = _receive(
                    gradient, gradient_row, out, out_row, statistics, rows_begin - 1, lengths, static
                )
                results = _visit_ahead(
                    keys_begin,
                    results,
                    content,
                    queries,
                    before_it,
                    source,
                    rows - 1,
                    dropout,
                    lengths,
                    static,
                )

    d_content = results.content
    if static.position:
        sums += ((batch * tiles + tile_index) * heads + head) * 2 * static.d_head
        tl.store(sums + dims, tl.sum(d_content, 0), mask=dims < static.d_head)
        cosine, sine = load_angles(angles, rows_begin + cache_len, key_rows, static, static.block_q, True)
        d_halves += first_row * 2 * static.half
        dtype = query.dtype.element_ty
        d_a = (sine * results.rotated_1 - cosine * results.rotated_2).to(dtype)
        d_b = (cosine * results.rotated_1 + sine * results.rotated_2).to(dtype)
        row_stride = heads * 2 * static.half
        store_rows(d_halves, rows_begin, query_rows, row_stride, columns, d_a, static.half)
        store_rows(d_halves + static.half, rows_begin, query_rows, row_stride, columns, d_b, static.half)
        d_position = _through_weight(
            d_a, d_b, d_halves, row_stride, rows_begin, query_rows, parameters.weight, static
        )
        tl.store(sums + static.d_head + dims, tl.sum(d_position, 0), mask=dims < static.d_head)
        d_content += d_position
    store_rows(
        d_query + first_row * static.d_head, rows_begin, query_rows, out_row, dims, d_content, static.d_head
    )


@triton.jit
def _receive(gradient, gradient_row, out, out_row, statistics, rows_begin, lengths, static: tl.constexpr):
    dims = tl.arange(0, static.width)
    rows = rows_begin + tl.arange(0, static.block_q)
    received = load_rows(
        gradient, rows_begin, lengths.query_rows, gradient_row, dims, static.block_q, static.d_head, True
    )
    given = load_rows(out, rows_begin, lengths.query_rows, out_row, dims, static.block_q, static.d_head, True)
    delta = tl.sum(received.to(static.acc) * given.to(static.acc), 1)
    inside = (rows >= 0) & (rows < lengths.query_rows)
    return Received(received, delta, tl.load(statistics + rows, mask=inside, other=float("inf")))


@triton.jit
def _visit(
    keys_begin, results, queries, received, source, rows, reach, dropout, lengths,
    static: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """What the keys from ``keys_begin`` on give to the queries."""
    keys = keys_begin + tl.arange(0, static.block_k)
    key_tile, cosine, sine = load_keys(source, keys_begin, lengths, static, MASKED)
    scores = raw_scores(
        queries,
        key_tile,
        cosine,
        sine,
        keys_begin,
        rows,
        source.phi,
        reach.ahead_from,
        lengths,
        static,
        MASKED,
    )
    weights = tl.exp2(scores * (static.scale * LOG2_E) - received.logarithm[:, None])
    if MASKED:
        weights = tl.where(sees(keys, reach, static), weights, 0.0)
    d_scores = _through_softmax(weights, received, source, keys_begin, rows, dropout, lengths, static, MASKED)
    tile = d_scores.to(key_tile.dtype)
    d_content = add_product(tile, key_tile, results.content, static)
    d_rotated_1, d_rotated_2 = results.rotated_1, results.rotated_2
    if static.position:
        if static.published and MASKED:
            behind = keys[None, :] - lengths.cache_len <= rows[:, None]
            tile = tl.where(behind, d_scores, 0.0).to(key_tile.dtype)
        d_rotated_1 = add_product(tile, cosine, d_rotated_1, static)
        d_rotated_2 = add_product(tile, sine, d_rotated_2, static)
    return Results(d_content, d_rotated_1, d_rotated_2)


@triton.jit
def _through_softmax(
    weights, received, source, keys_begin, rows, dropout, lengths, static: tl.constexpr, MASKED: tl.constexpr
):  # fmt: skip
    """dS, scaled, from the weights before dropout."""
    value_tile = load_values(source, keys_begin, lengths, static, MASKED)
    nothing = tl.zeros([static.block_q, static.block_k], static.acc)
    d_weights = add_inner(received.gradient, value_tile, nothing, static)
    if static.dropout:
        d_weights = dropped(d_weights, keep(dropout, rows, keys_begin, static.block_k), dropout)
    return weights * (d_weights - received.delta[:, None]) * static.scale


@triton.jit
def _visit_ahead(
    keys_begin, results, content, queries, received, source, rows, dropout, lengths, static: tl.constexpr
):  # fmt: skip
    """What the rows before each (``rows``, ``content``, ``received``) give to the rotated queries of ``queries``."""
    keys = keys_begin + tl.arange(0, static.block_k)
    key_tile, _, _ = load_keys(source, keys_begin, lengths, static, True)
    wrapped_1, wrapped_2 = wrapped_angles(source.phi, keys_begin, lengths.key_rows, static)
    scores = add_inner(content, key_tile, tl.zeros([static.block_q, static.block_k], static.acc), static)
    scores = add_inner(queries.rotated_1, wrapped_1, scores, static)
    scores = add_inner(queries.rotated_2, wrapped_2, scores, static)
    _, end = visible_keys(rows, lengths, static)
    ahead = (keys[None, :] - lengths.cache_len - rows[:, None] >= 2) & (keys[None, :] < end[:, None])
    weights = tl.exp2(scores * (static.scale * LOG2_E) - received.logarithm[:, None])
    d_scores = _through_softmax(
        tl.where(ahead, weights, 0.0), received, source, keys_begin, rows, dropout, lengths, static, True
    )
    tile = d_scores.to(key_tile.dtype)
    d_rotated_1 = add_product(tile, wrapped_1, results.rotated_1, static)
    d_rotated_2 = add_product(tile, wrapped_2, results.rotated_2, static)
    return Results(results.content, d_rotated_1, d_rotated_2)


@triton.jit
def _through_weight(d_a, d_b, d_halves, row_stride, rows_begin, query_rows, weight, static: tl.constexpr):
    """``d_halves W^T``; what does not fit at once is read back in pieces of what this program has just stored."""
    result = tl.zeros([static.block_q, static.width], static.acc)
    if static.half_width <= static.chunk:
        to_a, to_b = load_weight(weight, 0, 0, static, static.width, static.half_width)
        result = add_inner(d_b, to_b, add_inner(d_a, to_a, result, static), static)
    else:
        tl.debug_barrier()
        for start in range(0, static.half_width, static.chunk):
            columns = start + tl.arange(0, static.chunk)
            to_a, to_b = load_weight(weight, 0, start, static, static.width, static.chunk)
            part = load_rows(
                d_halves, rows_begin, query_rows, row_stride, columns, static.block_q, static.half, True
            )
            result = add_inner(part, to_a, result, static)
            part = load_rows(
                d_halves + static.half, rows_begin, query_rows, row_stride, columns, static.block_q, static.half, True
            )  # fmt: skip
            result = add_inner(part, to_b, result, static)
    return result
