"""What stands where in a segment, and who sees whom.

    keys:     [ cache c | read memory m | segment n | write memory m ]
    queries:            [ read memory m | segment n | write memory m ]

- a segment token sees the cache, all read memory, itself and earlier segment tokens;
- read memory sees all read memory, and the cache only if ``read_cache``;
- write memory sees all read memory, all segment tokens and all write memory, and the cache only if ``read_cache``.

This file is the only place that states this rule: the mask of the reference, the block bounds of the
matrix-product path and the index arithmetic of a kernel are all evaluated from :class:`SegmentLayout`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class QueryBlock(NamedTuple):
    """Query rows ``start:stop``, and the contiguous keys ``key_start:key_stop`` outside which they see nothing.

    Every row sees all of ``key_start:masked_from``; from ``masked_from`` on the mask decides.
    """

    start: int
    stop: int
    key_start: int
    masked_from: int
    key_stop: int


@dataclass(frozen=True)
class SegmentLayout:
    """The numbers that fix a segment's shape.

    Args:
        num_memory: memory tokens m, >= 0.
        write_memory: whether m write-memory tokens follow the segment's tokens.
        cache_len: cached positions c that precede the segment as keys, >= 0.
        read_cache: whether memory tokens see the cache as segment tokens do.

    Raises:
        ValueError: for a negative number.
    """

    num_memory: int = 0
    write_memory: bool = True
    cache_len: int = 0
    read_cache: bool = False

    def __post_init__(self) -> None:
        for name in ("num_memory", "cache_len"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    @property
    def num_write(self) -> int:
        """Write-memory tokens at the segment's end: m, or 0 without write memory."""
        return self.num_memory if self.write_memory else 0

    def query_length(self, segment_tokens: int) -> int:
        """Lq = m + n (+ m)."""
        return self.num_memory + segment_tokens + self.num_write

    def key_length(self, segment_tokens: int) -> int:
        """Lk = c + Lq."""
        return self.cache_len + self.query_length(segment_tokens)

    def segment_tokens(self, query_length: int) -> int:
        """The inverse of :meth:`query_length`: n for a given Lq.

        Raises:
            ValueError: if Lq is too short to hold the memory tokens.
        """
        n = query_length - self.num_memory - self.num_write
        if n < 0:
            raise ValueError(
                f"query has {query_length} rows, fewer than the {query_length - n} memory tokens of {self}"
            )
        return n

    def mask(self, segment_tokens: int, device: torch.device | str | None = None) -> Tensor:
        """Boolean ``[Lq, Lk]``; True where the query row may see the key."""
        m, n, c = self.num_memory, segment_tokens, self.cache_len
        rows = torch.arange(self.query_length(n), device=device)[:, None]
        columns = torch.arange(self.key_length(n), device=device)[None, :] - c  # negative inside the cache
        in_cache = columns < 0
        read_row = rows < m
        write_row = rows >= m + n
        sees_cache = ~(read_row | write_row) | self.read_cache
        sees_segment = torch.where(
            read_row, columns < m, torch.where(write_row, columns >= 0, columns <= rows)
        )
        return torch.where(in_cache, sees_cache, sees_segment)

    def key_padding(self, segment_tokens: int, key_start: Tensor) -> Tensor:
        """Boolean ``[B, Lk]``; True where the key is a segment token before ``key_start`` (int ``[B]``)."""
        first = self.cache_len + self.num_memory
        position = torch.arange(self.key_length(segment_tokens), device=key_start.device) - first
        return (position >= 0) & (position[None, :] < key_start[:, None].clamp(max=segment_tokens))

    def query_blocks(self, segment_tokens: int, block: int) -> list[QueryBlock]:
        """Cuts the query rows into blocks of one kind of row, segment rows at most ``block`` at a time.

        Together the blocks cover every row once, and no row sees a key outside its block's key range.
        """
        m, n, c = self.num_memory, segment_tokens, self.cache_len
        memory_keys = 0 if self.read_cache else c
        blocks = []
        if m:
            blocks.append(QueryBlock(0, m, memory_keys, c + m, c + m))
        pieces = max(1, -(-n // block))
        for piece in range(pieces if n else 0):
            start, stop = m + n * piece // pieces, m + n * (piece + 1) // pieces
            blocks.append(QueryBlock(start, stop, 0, c + start, c + stop))
        if self.num_write:
            end = self.key_length(n)
            blocks.append(QueryBlock(m + n, m + n + m, memory_keys, end, end))
        return blocks
