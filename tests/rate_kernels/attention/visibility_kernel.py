"""A kernel that writes down what visibility.py says of 64 rows and 64 keys."""

import triton
import triton.language as tl

from rate_kernels.attention.triton.tile import Lengths
from rate_kernels.attention.triton.visibility import seeing_rows, visible_keys


@triton.jit
def bounds(result, num_memory, segment_end, cache_len, query_rows, key_rows, static: tl.constexpr):
    lengths = Lengths(num_memory, segment_end, cache_len, query_rows, key_rows)
    lines = tl.arange(0, 64)
    first, end = visible_keys(lines, lengths, static)
    first_row, end_row = seeing_rows(lines, lengths, static)
    tl.store(result + lines, first)
    tl.store(result + 64 + lines, end)
    tl.store(result + 128 + lines, first_row)
    tl.store(result + 192 + lines, end_row)
