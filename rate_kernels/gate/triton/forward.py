"""The gate in one launch: a program takes some whole batch entries through all heads.

A program's columns go by in chunks: several heads at once where heads are narrow, several chunks per head where they
are wide. What is kept goes through the output map at the end: from registers where one chunk holds it all, else from
global memory, where the program left it. The key bias moves all scores of a row alike and so falls out of the
softmax; the weights of a row sum to one, so the value bias is added to what the heads keep.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rate_kernels.gate.parameters import GateParameters
from rate_kernels.gate.triton.launch import Call, power_of_two
from rate_kernels.gate.triton.tiles import attention_weights, inside, multiply, read_maps, rows_of
from rate_kernels.triton_support import Launch


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
    waiting,
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
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    TOTAL: tl.constexpr,
):
    """Writes ``out [B, m, d]``, and where d > COLUMNS ``waiting [B, m, d]``; inputs by strides of batch and row."""
    entry, index, token, row_exists = rows_of(tl.program_id(0), batch, tokens, ROWS)
    index, token = index.to(tl.int64), token.to(tl.int64)
    memory_rows = memory + index * memory_batch + token * memory_row
    update_rows = update + index * update_batch + token * update_row
    at_rows = (index * tokens + token) * D
    local = tl.arange(0, COLUMNS)

    if D_HEAD <= COLUMNS:
        # Whole heads per chunk. A head's scores are a product over the chunk in which the others' keys are zero.
        CHUNK: tl.constexpr = COLUMNS // D_HEAD * D_HEAD
        for first in range(0, D, CHUNK):
            column = first + local
            exists = inside(local, CHUNK, COLUMNS) & inside(column, D, CHUNK)
            query, key, value = read_maps(
                memory_rows, update_rows, row_exists, query_weight, key_weight, value_weight, column, exists,
                D, ACTIVATION, True, True, INNER, OPERAND, PRECISION, TOTAL,
            )  # fmt: skip
            query += tl.load(query_bias + column, mask=exists, other=0.0).to(TOTAL)[None, :]
            query, key, value = query.to(OPERAND), key.to(OPERAND), value.to(OPERAND)
            kept = tl.zeros([ROWS, COLUMNS], TOTAL)
            for head in range(CHUNK // D_HEAD):
                mine = (local // D_HEAD == head)[None, :]
                scores = tl.zeros([ROWS, ROWS], TOTAL)
                scores = multiply(query, tl.trans(tl.where(mine, key, 0.0)), scores, OPERAND, PRECISION)
                weights = attention_weights(scores, entry, D_HEAD)
                kept = multiply(weights, tl.where(mine, value, 0.0), kept, OPERAND, PRECISION)
            kept += tl.load(value_bias + column, mask=exists, other=0.0).to(TOTAL)[None, :]
            if D <= COLUMNS:
                weight_exists = exists[:, None] & exists[None, :]
                weight = tl.load(output_weight + column[None, :] * D + column[:, None], weight_exists, 0.0)
                result = tl.zeros([ROWS, COLUMNS], TOTAL)
                result = multiply(kept, weight, result, OPERAND, PRECISION)
                store(out, at_rows, row_exists, column, exists, result, output_bias, TOTAL)
            else:
                mask = row_exists[:, None] & exists[None, :]
                tl.store(waiting + at_rows[:, None] + column[None, :], kept.to(OPERAND), mask=mask)
    else:
        # Several chunks per head: the scores first, then the values.
        for first in range(0, D, D_HEAD):
            scores = tl.zeros([ROWS, ROWS], TOTAL)
            for part in range(0, D_HEAD, COLUMNS):
                column = first + part + local
                exists = inside(part + local, D_HEAD, COLUMNS)
                query, key, _ = read_maps(
                    memory_rows, update_rows, row_exists, query_weight, key_weight, value_weight, column, exists,
                    D, ACTIVATION, True, False, INNER, OPERAND, PRECISION, TOTAL,
                )  # fmt: skip
                query += tl.load(query_bias + column, mask=exists, other=0.0).to(TOTAL)[None, :]
                scores = multiply(query, tl.trans(key), scores, OPERAND, PRECISION)
            weights = attention_weights(scores, entry, D_HEAD).to(OPERAND)
            for part in range(0, D_HEAD, COLUMNS):
                column = first + part + local
                exists = inside(part + local, D_HEAD, COLUMNS)
                _, _, value = read_maps(
                    memory_rows, update_rows, row_exists, query_weight, key_weight, value_weight, column, exists,
                    D, ACTIVATION, False, True, INNER, OPERAND, PRECISION, TOTAL,
                )  # fmt: skip
                kept = tl.zeros([ROWS, COLUMNS], TOTAL)
                kept = multiply(weights, value, kept, OPERAND, PRECISION)
                kept += tl.load(value_bias + column, mask=exists, other=0.0).to(TOTAL)[None, :]
                mask = row_exists[:, None] & exists[None, :]
                tl.store(waiting + at_rows[:, None] + column[None, :], kept.to(OPERAND), mask=mask)

    if D > COLUMNS:
        tl.debug_barrier()  # other threads of the program wrote what this one reads
        for first in range(0, D, COLUMNS):
            column = first + local
            result = tl.zeros([ROWS, COLUMNS], TOTAL)
            for start in range(0, D, INNER):
                inner = start + tl.arange(0, INNER)
                mask = row_exists[:, None] & inside(inner, D, INNER)[None, :]
                kept = tl.load(waiting + at_rows[:, None] + inner[None, :], mask=mask, other=0.0)
                mask = inside(inner, D, INNER)[:, None] & inside(column, D, COLUMNS)[None, :]
                weight = tl.load(output_weight + column[None, :] * D + inner[:, None], mask=mask, other=0.0)
                result = multiply(kept, weight, result, OPERAND, PRECISION)
            store(out, at_rows, row_exists, column, inside(column, D, COLUMNS), result, output_bias, TOTAL)


@triton.jit
def store(out, at_rows, row_exists, column, column_exists, result, bias, TOTAL: tl.constexpr):
    """Writes some columns of the result, bias added."""
    result += tl.load(bias + column, mask=column_exists, other=0.0).to(TOTAL)[None, :]
    mask = row_exists[:, None] & column_exists[None, :]
    tl.store(out + at_rows[:, None] + column[None, :], result.to(out.dtype.element_ty), mask=mask)


def plan(call: Call, out: Tensor) -> Launch:
    """The launch that writes ``out [B, m, d]``, contiguous."""
    batch, tokens, d = call.memory.shape
    settings = call.settings("gate_forward")
    columns = min(settings["columns"], power_of_two(d))
    parameters = [name for name in GateParameters._fields if name != "key_bias"]
    arguments = {
        **call.arguments(*parameters),
        "waiting": out if d <= columns else out.new_empty(out.shape, dtype=getattr(torch, call.operand)),
        "out": out,
        "batch": batch,
        "ROWS": settings["rows"],
        "COLUMNS": columns,
        "INNER": min(settings["inner"], power_of_two(d)),
    }
    programs = -(-batch // (settings["rows"] // tokens))
    return Launch(gate_forward, (programs,), arguments, settings["num_warps"], settings["num_stages"])
