"""The rule of :class:`rate_kernels.segment.SegmentLayout` as index arithmetic, for kernels.

Every query row sees keys that stand next to each other, and every key is seen by rows that stand next to each other, so
the rule is two bounds per row, or per key. A tile's loops take their ranges from the smallest and largest bound; the
tests hold both functions against ``SegmentLayout.mask``, row by row and key by key.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Reach(NamedTuple):
    """Of a tile of query rows: first key and end per row, the keys hidden from all, the first key ahead of any row."""

    first: Any
    end: Any
    hidden_begin: Any
    hidden_end: Any
    ahead_from: Any


@triton.jit
def visible_keys(rows, lengths, static: tl.constexpr):
    """First key and end of the keys that each query row sees."""
    segment = (rows >= lengths.num_memory) & (rows < lengths.segment_end)
    first = tl.where(segment | static.read_cache, 0, lengths.cache_len)
    end = tl.where(rows < lengths.num_memory, lengths.cache_len + lengths.num_memory, lengths.key_rows)
    return first, tl.where(segment, lengths.cache_len + rows + 1, end)


@triton.jit
def seeing_rows(keys, lengths, static: tl.constexpr):
    """First row and end of the query rows that see each key."""
    token = keys - lengths.cache_len
    by_segment_alone = (token < 0) & (not static.read_cache)
    first = tl.where(token < lengths.num_memory, 0, tl.minimum(token, lengths.segment_end))
    first = tl.where(by_segment_alone, lengths.num_memory, first)
    return first, tl.where(by_segment_alone, lengths.segment_end, lengths.query_rows)


@triton.jit
def hidden_keys(key_start, batch, lengths, static: tl.constexpr):
    """Begin and end of the segment tokens that are padding and seen by nobody."""
    begin = lengths.cache_len + lengths.num_memory
    end = begin
    if static.padded:
        count = tl.load(key_start + batch).to(tl.int32)
        end = begin + tl.minimum(tl.maximum(count, 0), lengths.segment_end - lengths.num_memory)
    return begin, end


@triton.jit
def reach_of(rows, rows_begin, key_start, batch, lengths, static: tl.constexpr):
    """The :class:`Reach` of a tile of rows, and the end of the keys that may go without a mask."""
    first, end = visible_keys(rows, lengths, static)
    hidden_begin, hidden_end = hidden_keys(key_start, batch, lengths, static)
    ahead_from = lengths.key_rows
    plain_end = lengths.key_rows
    if static.published:
        plain_end = lengths.cache_len + rows_begin + 1
        sees_ahead = tl.max(tl.where(rows < lengths.query_rows, end - rows, 0)) > lengths.cache_len + 1
        ahead_from = tl.where(sees_ahead, plain_end, lengths.key_rows)
    return Reach(first, end, hidden_begin, hidden_end, ahead_from), plain_end


@triton.jit
def after_hidden(reach):
    """The first key that is not before or among hidden ones; 0 where none are hidden."""
    return tl.where(reach.hidden_begin < reach.hidden_end, reach.hidden_end, 0)


@triton.jit
def sees(keys, reach, static: tl.constexpr):
    """Boolean ``[rows, keys]`` of a tile."""
    visible = (keys[None, :] >= reach.first[:, None]) & (keys[None, :] < reach.end[:, None])
    if static.padded:
        visible = visible & ((keys < reach.hidden_begin) | (keys >= reach.hidden_end))[None, :]
    return visible


@triton.jit
def loop_bounds(first, end, inside, limit, plain_begin, plain_end, BLOCK: tl.constexpr):
    """The loop over the other side's tiles: where it starts, and which tiles need no mask.

    Args:
        first, end: per line of this tile, the range it meets on the other side.
        inside: which lines exist.
        limit: length of the other side.
        plain_begin, plain_end: no tile outside goes without a mask, whatever the ranges say.
        BLOCK: lines of a tile of the other side.

    Returns:
        begin: of the first tile, a multiple of 16.
        before: number of masked tiles before the plain ones.
        plain: number of tiles that every line meets in full.
        masked: number of masked tiles, before and after the plain ones together.
    """
    begin = tl.min(tl.where(inside, first, limit)) // 16 * 16
    stop = tl.max(tl.where(inside, end, 0))
    plain_begin = tl.maximum(plain_begin, tl.max(tl.where(inside, first, 0)))
    plain_end = tl.minimum(plain_end, tl.min(tl.where(inside, end, limit)))
    before = (tl.maximum(plain_begin - begin, 0) + BLOCK - 1) // BLOCK
    plain = tl.maximum(plain_end - begin - before * BLOCK, 0) // BLOCK
    before = tl.where(plain > 0, before, 0)  # with nothing plain, the masked tiles are one run
    after = tl.maximum(stop - begin - (before + plain) * BLOCK, 0)
    return begin, before, plain, before + (after + BLOCK - 1) // BLOCK


@triton.jit
def masked_tile(tile, before, plain):
    """The number, counted from the first, of the masked tile ``tile``."""
    return tl.where(tile < before, tile, tile + plain)
