"""What the attention kernels share: tiles loaded, queries rotated, scores, dropout.

A tile of queries is held as *content* ``q + u`` and *rotated* ``q~`` in two halves, which meet the cosines and the
sines of the keys' table (the separable form, see ../position.py). Widths are padded to powers of two with zeros.

Numbers known at compile time come as one ``static`` argument (launch.py makes it), tensors that go together as the
named tuples below.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

ROUNDS = tl.constexpr(7)
"""Rounds of Philox: the fewest that pass every test of TestU01 (Salmon et al. 2011)."""

LOG2_E = tl.constexpr(1.4426950408889634)


class Lengths(NamedTuple):
    """Segment tokens are the rows ``num_memory .. segment_end - 1``."""

    num_memory: Any
    segment_end: Any
    cache_len: Any
    query_rows: Any
    key_rows: Any


class Parameters(NamedTuple):
    """Of one head: addresses of W, u, v and of the angles' table in the sums' dtype."""

    weight: Any
    content_bias: Any
    position_bias: Any
    angles: Any


class Queries(NamedTuple):
    """Tiles ``q + u``, both halves of ``q~``, and the same halves of the row after each (if ``published``)."""

    content: Any
    rotated_1: Any
    rotated_2: Any
    following_1: Any
    following_2: Any


class Keys(NamedTuple):
    """Addresses of one head's keys and values, strides of their rows, and the address of the table ``phi``."""

    key: Any
    value: Any
    key_row: Any
    value_row: Any
    phi: Any


class Dropout(NamedTuple):
    """Address of the seed; batch entry and head as one number; of 2^16 draws, how many drop a weight."""

    seed: Any
    group: Any
    threshold: Any


# --- Loading and storing --------------------------------------------------------------------------


@triton.jit
def _addresses(base, begin, stride, columns, COUNT: tl.constexpr):
    """Offsets from one tile to the next may need 64 bits, those inside a tile do not."""
    lines = tl.arange(0, COUNT)
    return base + tl.cast(begin, tl.int64) * stride + (lines[:, None] * stride + columns[None, :])


@triton.jit
def load_rows(
    base, begin, end, stride, columns, COUNT: tl.constexpr, WIDTH: tl.constexpr, GUARD: tl.constexpr
):  # fmt: skip
    """``COUNT`` rows from ``begin``; zeros beyond ``WIDTH`` and, with ``GUARD``, outside the rows ``0 .. end - 1``."""
    pointers = _addresses(base, begin, stride, columns, COUNT)
    if GUARD:
        rows = begin + tl.arange(0, COUNT)
        inside = ((rows >= 0) & (rows < end))[:, None] & (columns < WIDTH)[None, :]
        tile = tl.load(pointers, mask=inside, other=0.0)
    elif columns.shape[0] > WIDTH:
        tile = tl.load(pointers, mask=(columns < WIDTH)[None, :], other=0.0)
    else:
        tile = tl.load(pointers)
    return tile


@triton.jit
def store_rows(base, begin, end, stride, columns, tile, WIDTH: tl.constexpr):
    """Writes a tile from row ``begin`` on where its rows and columns exist."""
    pointers = _addresses(base, begin, stride, columns, tile.shape[0])
    inside = (begin + tl.arange(0, tile.shape[0]) < end)[:, None] & (columns < WIDTH)[None, :]
    tl.store(pointers, tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def load_angles(table, begin, end, static: tl.constexpr, COUNT: tl.constexpr, GUARD: tl.constexpr):
    """Cosines and sines of ``COUNT`` positions, ``[COUNT, half_width]`` each, from a table ``[T, 2 half]``."""
    columns = tl.arange(0, static.half_width)
    cosine = load_rows(table, begin, end, 2 * static.half, columns, COUNT, static.half, GUARD)
    sine = load_rows(table + static.half, begin, end, 2 * static.half, columns, COUNT, static.half, GUARD)
    return cosine, sine


@triton.jit
def wrapped_angles(phi, keys_begin, key_rows, static: tl.constexpr):
    """The angles of the positions ``key - key_rows``, where ``shift="transformer_xl"`` puts a key ahead."""
    columns = tl.arange(0, static.half_width)
    positions = key_rows - keys_begin - tl.arange(0, static.block_k)
    pointers = phi + positions[:, None] * (2 * static.half) + columns[None, :]
    inside = (positions >= 0)[:, None] & (columns < static.half)[None, :]
    cosine = tl.load(pointers, mask=inside, other=0.0)
    return cosine, -tl.load(pointers + static.half, mask=inside, other=0.0)


@triton.jit
def biased(tile, bias, columns, static: tl.constexpr):
    """``tile + bias`` per column, rounded once."""
    added = tl.load(bias + columns, mask=columns < static.d_head, other=0.0)
    return (tile.to(static.acc) + added.to(static.acc)[None, :]).to(tile.dtype)


# --- Products -------------------------------------------------------------------------------------


@triton.jit
def add_product(left, right, accumulator, static: tl.constexpr):
    """``accumulator + left right``."""
    return tl.dot(left, right, accumulator, input_precision=static.precision, out_dtype=static.acc)


@triton.jit
def add_inner(left, right, accumulator, static: tl.constexpr):
    """``accumulator + left right^T``: every row of the one with every row of the other."""
    return add_product(left, tl.trans(right), accumulator, static)


# --- Keys -----------------------------------------------------------------------------------------


@triton.jit
def load_keys(source, keys_begin, lengths, static: tl.constexpr, MASKED: tl.constexpr):
    """A tile of keys, and the cosines and sines of their positions; without positions the keys stand for them."""
    dims = tl.arange(0, static.width)
    key_tile = load_rows(
        source.key, keys_begin, lengths.key_rows, source.key_row, dims, static.block_k, static.d_head, MASKED
    )
    cosine, sine = key_tile, key_tile
    if static.position:
        cosine, sine = load_angles(source.phi, keys_begin, lengths.key_rows, static, static.block_k, MASKED)
    return key_tile, cosine, sine


@triton.jit
def load_values(source, keys_begin, lengths, static: tl.constexpr, MASKED: tl.constexpr):
    """A tile of values."""
    dims = tl.arange(0, static.width)
    return load_rows(
        source.value,
        keys_begin,
        lengths.key_rows,
        source.value_row,
        dims,
        static.block_k,
        static.d_head,
        MASKED,
    )


# --- Queries --------------------------------------------------------------------------------------


@triton.jit
def parameters_of(head, weight, content_bias, position_bias, angles, static: tl.constexpr):
    """The addresses of one head's parameters; ``head`` is a 64-bit integer."""
    first = head * static.d_head
    return Parameters(weight + first * 2 * static.half, content_bias + first, position_bias + first, angles)


@triton.jit
def content_query(query, rows_begin, stride, parameters, lengths, static: tl.constexpr, GUARD: tl.constexpr):
    """``q + u`` of a tile of rows; without positions ``q``."""
    dims = tl.arange(0, static.width)
    tile = load_rows(
        query, rows_begin, lengths.query_rows, stride, dims, static.block_q, static.d_head, GUARD
    )
    if static.position:
        tile = biased(tile, parameters.content_bias, dims, static)
    return tile


@triton.jit
def rotated_query(query, rows_begin, stride, parameters, lengths, static: tl.constexpr):
    """Both halves of ``q~`` of a tile of rows, from ``(q + v) W``; ``chunk`` columns of q at a time."""
    a = tl.zeros([static.block_q, static.half_width], static.acc)  # what meets the sines of a distance
    b = tl.zeros([static.block_q, static.half_width], static.acc)  # and the cosines
    for start in range(0, static.width, static.chunk):
        dims = start + tl.arange(0, static.chunk)
        tile = load_rows(
            query, rows_begin, lengths.query_rows, stride, dims, static.block_q, static.d_head, True
        )
        tile = biased(tile, parameters.position_bias, dims, static)
        to_a, to_b = load_weight(parameters.weight, start, 0, static, static.chunk, static.half_width)
        a = add_product(tile, to_a, a, static)
        b = add_product(tile, to_b, b, static)
    begin = rows_begin + lengths.cache_len
    cosine, sine = load_angles(parameters.angles, begin, lengths.key_rows, static, static.block_q, True)
    dtype = query.dtype.element_ty
    return (a * sine + b * cosine).to(dtype), (b * sine - a * cosine).to(dtype)


@triton.jit
def load_weight(weight, row, column, static: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A tile of one head's W: the columns that meet the sines, and those that meet the cosines."""
    columns = column + tl.arange(0, COLUMNS)
    to_a = load_rows(weight, row, static.d_head, 2 * static.half, columns, ROWS, static.half, True)
    to_b = load_rows(
        weight + static.half, row, static.d_head, 2 * static.half, columns, ROWS, static.half, True
    )
    return to_a, to_b


@triton.jit
def load_queries(query, rows_begin, stride, parameters, lengths, static: tl.constexpr):
    """The tiles of these rows that meet keys."""
    content = content_query(query, rows_begin, stride, parameters, lengths, static, True)
    queries = Queries(content, content, content, content, content)
    if static.position:
        first, second = rotated_query(query, rows_begin, stride, parameters, lengths, static)
        queries = Queries(content, first, second, first, second)
        if static.published:
            next_first, next_second = rotated_query(
                query, rows_begin + 1, stride, parameters, lengths, static
            )
            queries = Queries(content, first, second, next_first, next_second)
    return queries


# --- Scores ---------------------------------------------------------------------------------------


@triton.jit
def raw_scores(
    queries, key_tile, cosine, sine, keys_begin, rows, phi, ahead_from, lengths,
    static: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """``(q_i + u) . k_j + (q_i + v) . W e(i - j)`` of a tile.

    With ``shift="transformer_xl"`` the position term is 0 one key ahead, and the next row's, a whole length farther,
    beyond that; only masked tiles hold keys ahead, from ``ahead_from`` on.
    """
    nothing = tl.zeros([static.block_q, static.block_k], static.acc)
    scores = add_inner(queries.content, key_tile, nothing, static)
    if static.position:
        content_scores = scores
        scores = add_inner(queries.rotated_1, cosine, scores, static)
        scores = add_inner(queries.rotated_2, sine, scores, static)
        if static.published and MASKED:
            if keys_begin + static.block_k > ahead_from:
                wrapped_1, wrapped_2 = wrapped_angles(phi, keys_begin, lengths.key_rows, static)
                wrapped = add_inner(queries.following_1, wrapped_1, content_scores, static)
                wrapped = add_inner(queries.following_2, wrapped_2, wrapped, static)
                ahead = (
                    (keys_begin + tl.arange(0, static.block_k))[None, :] - lengths.cache_len - rows[:, None]
                )
                scores = tl.where(ahead >= 2, wrapped, tl.where(ahead == 1, content_scores, scores))
    return scores


@triton.jit
def keep(dropout, rows, keys_begin, BLOCK_K: tl.constexpr):
    """Which weights dropout keeps, ``[len(rows), BLOCK_K]``; ``keys_begin`` is a multiple of 8.

    Philox 4x32 at the counter (key // 8, row, group, 0) gives 128 bits: 16 for each of 8 keys, kept where they are at
    least ``threshold``. dropout.py says the same in PyTorch.
    """
    eighths = (keys_begin // 8 + tl.arange(0, BLOCK_K // 8))[None, :]
    lines = rows[:, None]
    zero = (lines + eighths) * 0
    a, b, c, d = tl.philox(
        tl.load(dropout.seed), eighths + zero, lines + zero, dropout.group + zero, zero, ROUNDS
    )
    words = tl.join(tl.join(a, c), tl.join(b, d)).reshape([rows.shape[0], BLOCK_K // 2])
    bits = tl.join(words & 0xFFFF, words >> 16).reshape([rows.shape[0], BLOCK_K])
    return bits.to(tl.int32) >= dropout.threshold


@triton.jit
def dropped(weights, kept, dropout):
    """``weights`` after dropout, or what their gradient becomes before it."""
    scale = 65536.0 / (65536 - dropout.threshold).to(weights.dtype)
    return tl.where(kept, weights * scale, 0.0)
