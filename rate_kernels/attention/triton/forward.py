"""Forward kernel: one program per tile of query rows of one head of one batch entry.

    prologue   content = q + u,  rotated = R(i) (q + v) W
    loop       tiles of keys: scores, online softmax, weighted sum of the values
    epilogue   out = sum / total;  statistics = log2 of the total of exp2(scores)

Tiles of keys that nobody in the query tile sees are skipped, those that all see in full go without a mask.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from rate_kernels.attention.triton.tile import (
    LOG2_E,
    Dropout,
    Keys,
    Lengths,
    add_product,
    dropped,
    keep,
    load_keys,
    load_queries,
    load_values,
    parameters_of,
    raw_scores,
    store_rows,
)
from rate_kernels.attention.triton.visibility import after_hidden, loop_bounds, masked_tile, reach_of, sees

LENGTHS = ["heads", "num_memory", "segment_end", "cache_len", "query_rows", "key_rows", "threshold"]
"""Integers that no version of a kernel is compiled for."""


class Softmax(NamedTuple):
    """Per row: the weighted sum of the values so far, the highest score, the total of the weights."""

    attended: Any
    highest: Any
    total: Any


@triton.jit(do_not_specialize=LENGTHS)
def attention_forward(
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
    query_batch,
    query_row,
    query_head,
    key_batch,
    key_row,
    key_head,
    value_batch,
    value_row,
    value_head,
    heads,
    num_memory,
    segment_end,
    cache_len,
    query_rows,
    key_rows,
    threshold,
    static: tl.constexpr,
):
    """Writes ``out`` and ``statistics``; launch.py names every argument."""
    tiles = (query_rows + static.block_q - 1) // static.block_q
    group = tl.program_id(0) // tiles
    rows_begin = (tiles - 1 - tl.program_id(0) % tiles) * static.block_q  # the longest rows first
    batch, head = (group // heads).to(tl.int64), (group % heads).to(tl.int64)
    rows = rows_begin + tl.arange(0, static.block_q)
    query += batch * query_batch + head * query_head
    key += batch * key_batch + head * key_head
    value += batch * value_batch + head * value_head
    parameters = parameters_of(head, weight, content_bias, position_bias, angles, static)
    lengths = Lengths(num_memory, segment_end, cache_len, query_rows, key_rows)
    source = Keys(key, value, key_row, value_row, phi)
    dropout = Dropout(seed, group, threshold)

    queries = load_queries(query, rows_begin, query_row, parameters, lengths, static)
    reach, plain_end = reach_of(rows, rows_begin, key_start, batch, lengths, static)
    begin, before, plain, masked = loop_bounds(
        reach.first, reach.end, rows < query_rows, key_rows, after_hidden(reach), plain_end, static.block_k
    )
    total = tl.zeros([static.block_q], static.acc)
    softmax = Softmax(tl.zeros([static.block_q, static.width], static.acc), total - float("inf"), total)
    for tile in range(0, plain):
        keys_begin = begin + (before + tile) * static.block_k
        softmax = _visit(keys_begin, softmax, queries, source, rows, reach, dropout, lengths, static, False)
    for tile in range(0, masked):
        keys_begin = begin + masked_tile(tile, before, plain) * static.block_k
        softmax = _visit(keys_begin, softmax, queries, source, rows, reach, dropout, lengths, static, True)

    seeing = softmax.total > 0
    total = tl.where(seeing, softmax.total, 1.0)
    out += (batch * query_rows * heads + head) * static.d_head
    dims = tl.arange(0, static.width)
    store_rows(
        out,
        rows_begin,
        query_rows,
        heads * static.d_head,
        dims,
        softmax.attended / total[:, None],
        static.d_head,
    )
    # For a row that sees nothing, infinity makes every weight of the backward pass 0.
    logarithm = tl.where(seeing, softmax.highest + tl.log2(total), float("inf"))
    tl.store(statistics + group.to(tl.int64) * query_rows + rows, logarithm, mask=rows < query_rows)


@triton.jit
def _visit(
    keys_begin, softmax, queries, source, rows, reach, dropout, lengths,
    static: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One step of the online softmax, over the keys from ``keys_begin`` on."""
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
    scores *= static.scale * LOG2_E  # powers of two from here on
    if MASKED:
        scores = tl.where(sees(keys, reach, static), scores, float("-inf"))
    highest = tl.maximum(softmax.highest, tl.max(scores, 1))
    base = highest
    if MASKED:
        base = tl.where(highest == float("-inf"), 0.0, highest)
    weights = tl.exp2(scores - base[:, None])
    shrink = tl.exp2(softmax.highest - base)
    total = softmax.total * shrink + tl.sum(weights, 1)
    if static.dropout:
        weights = dropped(weights, keep(dropout, rows, keys_begin, static.block_k), dropout)
    value_tile = load_values(source, keys_begin, lengths, static, MASKED)
    attended = add_product(
        weights.to(value_tile.dtype), value_tile, softmax.attended * shrink[:, None], static
    )
    return Softmax(attended, highest, total)
