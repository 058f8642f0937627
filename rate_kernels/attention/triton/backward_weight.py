"""Third kernel of the backward pass: ``dW = (q + v)^T d_halves`` of one head, in parts whose sum is taken in order.

One program per head, tile of W's columns and part of the rows of all batch entries.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rate_kernels.attention.triton.tile import add_product, biased


@triton.jit(do_not_specialize=["heads", "batches", "query_rows", "part_rows"])
def attention_backward_weight(
    query,
    position_bias,
    d_halves,
    parts,
    query_batch,
    query_row,
    query_head,
    heads,
    batches,
    query_rows,
    part_rows,
    static: tl.constexpr,
):
    """Writes ``parts``."""
    head, part = tl.program_id(0).to(tl.int64), tl.program_id(2).to(tl.int64)
    columns = tl.program_id(1) * static.block_c + tl.arange(0, static.block_c)
    dims = tl.arange(0, static.width)
    d_pos = 2 * static.half
    begin = part * part_rows
    end = tl.minimum(begin + part_rows, batches.to(tl.int64) * query_rows)
    query += head * query_head
    sums = tl.zeros([static.width, static.block_c], static.acc)
    for start in range(begin, end, static.block_r):
        lines = start + tl.arange(0, static.block_r)  # of all batch entries, one after the other
        inside = (lines < end)[:, None]
        offsets = lines // query_rows * query_batch + lines % query_rows * query_row
        pointers = query + offsets[:, None] + dims[None, :]
        tile = tl.load(pointers, mask=inside & (dims < static.d_head)[None, :], other=0.0)
        tile = biased(tile, position_bias + head * static.d_head, dims, static)  # lines outside meet zeros
        pointers = d_halves + ((lines * heads + head) * d_pos)[:, None] + columns[None, :]
        received = tl.load(pointers, mask=inside & (columns < d_pos)[None, :], other=0.0)
        sums = add_product(tl.trans(tile), received, sums, static)
    parts += (part * heads + head) * static.d_head * d_pos
    pointers = parts + dims[:, None] * d_pos + columns[None, :]
    tl.store(pointers, sums, mask=(dims < static.d_head)[:, None] & (columns < d_pos)[None, :])
