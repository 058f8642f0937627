"""The gate in one launch: a program takes some whole batch entries through all heads.

A program's columns go by in chunks: several heads at once where heads are narrow, several chunks per head where they
are wide. The chunk's share of the output map is added up in registers, so that nothing but the result is written.
The key bias moves all scores of a row alike and so falls out of the softmax; the weights of a row sum to one, so the
value bias is added to what the heads keep.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from rate_kernels.gate.parameters import GateParameters
from rate_kernels.gate.triton.launch import Call, Launch, power_of_two
from rate_kernels.gate.triton.tiles import attention_weights, multiply, read_maps, rows_of


@triton.jit(do_not_specialize=["batch", "tokens"])
def gate_forward(
    memory,
    update,
    query_weight,
    query_bias,
    key_weight,
    value_weight,
    value_bias,
    output_weight,
    output_bias,
    out,
    memory_batch,
    memory_row,
    update_batch,
    update_row,
    batch,
    tokens,
    D: tl.constexpr,
    D_HEAD: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WIDTH: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    TOTAL: tl.constexpr,
):
    """Writes ``out [B, m, d]``; inputs by the strides of batch and row."""
    entry, index, token, row_exists = rows_of(tl.program_id(0), batch, tokens, ROWS)
    index, token = index.to(tl.int64), token.to(tl.int64)
    memory_rows = memory + index * memory_batch + token * memory_row
    update_rows = update + index * update_batch + token * update_row
    everywhere = tl.arange(0, WIDTH)
    result = tl.zeros([ROWS, WIDTH], TOTAL)

    if D_HEAD <= COLUMNS:
        # Whole heads per chunk. A head's scores are a product over the chunk in which the others' keys are zero.
        CHUNK: tl.constexpr = COLUMNS // D_HEAD * D_HEAD
        for first in range(0, D, CHUNK):
            local = tl.arange(0, COLUMNS)
            column = first + local
            exists = (local < CHUNK) & (column < D)
            query, key, value = read_maps(
                memory_rows, update_rows, row_exists, query_weight, key_weight, value_weight, column, exists,
                D, ACTIVATION, True, True, INNER, OPERAND, PRECISION, TOTAL,
            )  # fmt: skip
            query += tl.load(query_bias + column, mask=exists, other=0.0).to(TOTAL)[None, :]
            kept = tl.zeros([ROWS, COLUMNS], TOTAL)
            for head in range(CHUNK // D_HEAD):
                mine = (local // D_HEAD == head)[None, :]
                scores = tl.zeros([ROWS, ROWS], TOTAL)
                scores = multiply(query, tl.trans(tl.where(mine, key, 0.0)), scores, OPERAND, PRECISION)
                weights = attention_weights(scores, entry, D_HEAD)
                kept = multiply(weights, tl.where(mine, value, 0.0), kept, OPERAND, PRECISION)
            kept += tl.load(value_bias + column, mask=exists, other=0.0).to(TOTAL)[None, :]
            weight_exists = exists[:, None] & (everywhere < D)[None, :]
            weight = tl.load(output_weight + everywhere[None, :] * D + column[:, None], weight_exists, 0.0)
            result = multiply(kept, weight, result, OPERAND, PRECISION)
    else:
        # Several chunks per head: the scores first, then the values.
        for first in range(0, D, D_HEAD):
            scores = tl.zeros([ROWS, ROWS], TOTAL)
            for part in range(0, D_HEAD, COLUMNS):
                local = part + tl.arange(0, COLUMNS)
                column = first + local
                exists = local < D_HEAD
                query, key, _ = read_maps(
                    memory_rows, update_rows, row_exists, query_weight, key_weight, value_weight, column, exists,
                    D, ACTIVATION, True, False, INNER, OPERAND, PRECISION, TOTAL,
                )  # fmt: skip
                query += tl.load(query_bias + column, mask=exists, other=0.0).to(TOTAL)[None, :]
                scores = multiply(query, tl.trans(key), scores, OPERAND, PRECISION)
            weights = attention_weights(scores, entry, D_HEAD)
            for part in range(0, D_HEAD, COLUMNS):
                local = part + tl.arange(0, COLUMNS)
                column = first + local
                exists = local < D_HEAD
                _, _, value = read_maps(
                    memory_rows, update_rows, row_exists, query_weight, key_weight, value_weight, column, exists,
                    D, ACTIVATION, False, True, INNER, OPERAND, PRECISION, TOTAL,
                )  # fmt: skip
                kept = tl.zeros([ROWS, COLUMNS], TOTAL)
                kept = multiply(weights, value, kept, OPERAND, PRECISION)
                kept += tl.load(value_bias + column, mask=exists, other=0.0).to(TOTAL)[None, :]
                weight_exists = exists[:, None] & (everywhere < D)[None, :]
                weight = tl.load(
                    output_weight + everywhere[None, :] * D + column[:, None], weight_exists, 0.0
                )
                result = multiply(kept, weight, result, OPERAND, PRECISION)

    result += tl.load(output_bias + everywhere, mask=everywhere < D, other=0.0).to(TOTAL)[None, :]
    out_rows = out + (index * tokens + token) * D
    tl.store(
        out_rows[:, None] + everywhere[None, :],
        result.to(out.dtype.element_ty),
        mask=row_exists[:, None] & (everywhere < D)[None, :],
    )


def plan(call: Call, out: Tensor) -> Launch:
    """The launch that writes ``out [B, m, d]``, contiguous."""
    batch, tokens, d = call.memory.shape
    settings = call.settings("gate_forward")
    parameters = [name for name in GateParameters._fields if name != "key_bias"]
    arguments = {
        **call.arguments(*parameters),
        "out": out,
        "batch": batch,
        "ROWS": settings["rows"],
        "COLUMNS": min(settings["columns"], power_of_two(d)),
        "INNER": min(settings["inner"], power_of_two(d)),
        "WIDTH": power_of_two(d),
    }
    programs = -(-batch // (settings["rows"] // tokens))
    return Launch(gate_forward, (programs,), arguments, settings["num_warps"], settings["num_stages"])
