"""The gate's gradients, first of two launches: each head of each batch entry, everything recomputed.

With ``D_h = G W_o,h``, G the gradient of the result, and without the linear maps, which the second launch adds up,

    d_weights = D_h V_h^T             d_scores = weights * (d_weights - rowsum(weights * d_weights)) / sqrt(d_head)
    dQ_h = d_scores K_h               dK_h = d_scores^T Q_h               dV_h = weights^T D_h

A program per head and batch group writes dQ, dK, dV and what the head kept, all ``[B m, d]``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from rate_kernels.gate.parameters import GateParameters
from rate_kernels.gate.triton.launch import Call, power_of_two
from rate_kernels.gate.triton.tiles import attention_weights, inside, multiply, read_maps, rows_of
from rate_kernels.triton_support import Launch


@triton.jit(do_not_specialize=["batch", "tokens"])
def gate_backward_heads(
    gradient,
    memory,
    update,
    query_weight,
    query_bias,
    key_weight,
    value_weight,
    value_bias,
    output_weight,
    work,
    gradient_batch,
    gradient_row,
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
    """Writes ``work [4, B, m, d]``: dQ, dK, dV, kept."""
    entry, index, token, row_exists = rows_of(tl.program_id(0), batch, tokens, ROWS)
    index, token = index.to(tl.int64), token.to(tl.int64)
    gradient_rows = gradient + index * gradient_batch + token * gradient_row
    memory_rows = memory + index * memory_batch + token * memory_row
    update_rows = update + index * update_batch + token * update_row
    first = tl.program_id(1) * D_HEAD
    slot = batch.to(tl.int64) * tokens * D
    work_rows = work + (index * tokens + token) * D + first
    local = tl.arange(0, COLUMNS)

    scores = tl.zeros([ROWS, ROWS], TOTAL)
    d_weights = tl.zeros([ROWS, ROWS], TOTAL)

    if D_HEAD <= COLUMNS:
        exists = inside(local, D_HEAD, COLUMNS)
        mask = row_exists[:, None] & exists[None, :]
        query, key, value, d_kept = recompute(
            gradient_rows, memory_rows, update_rows, row_exists, query_weight, query_bias, key_weight,
            value_weight, output_weight, first + local, exists, D, ACTIVATION, INNER, OPERAND, PRECISION, TOTAL,
        )  # fmt: skip
        scores = multiply(query, tl.trans(key), scores, OPERAND, PRECISION)
        d_weights = multiply(d_kept, tl.trans(value), d_weights, OPERAND, PRECISION)
        weights, d_scores = differentiate(scores, d_weights, entry, D_HEAD, OPERAND)
        bias = tl.load(value_bias + first + local, mask=exists, other=0.0).to(TOTAL)[None, :]
        store_head(
            work_rows[:, None] + local[None, :], slot, mask, weights, d_scores,
            query, key, value, d_kept, bias, OPERAND, PRECISION, TOTAL,
        )  # fmt: skip
    else:
        # A wide head goes by in parts, which wait in the places of its results until all scores are known.
        for part in range(0, D_HEAD, COLUMNS):
            exists = inside(part + local, D_HEAD, COLUMNS)
            mask = row_exists[:, None] & exists[None, :]
            query, key, value, d_kept = recompute(
                gradient_rows, memory_rows, update_rows, row_exists, query_weight, query_bias, key_weight,
                value_weight, output_weight, first + part + local, exists,
                D, ACTIVATION, INNER, OPERAND, PRECISION, TOTAL,
            )  # fmt: skip
            scores = multiply(query, tl.trans(key), scores, OPERAND, PRECISION)
            d_weights = multiply(d_kept, tl.trans(value), d_weights, OPERAND, PRECISION)
            at = work_rows[:, None] + (part + local)[None, :]
            tl.store(at, query, mask=mask)
            tl.store(at + slot, key, mask=mask)
            tl.store(at + 2 * slot, value, mask=mask)
            tl.store(at + 3 * slot, d_kept, mask=mask)
        weights, d_scores = differentiate(scores, d_weights, entry, D_HEAD, OPERAND)
        tl.debug_barrier()  # other threads of the program wrote what this one reads
        for part in range(0, D_HEAD, COLUMNS):
            exists = inside(part + local, D_HEAD, COLUMNS)
            mask = row_exists[:, None] & exists[None, :]
            at = work_rows[:, None] + (part + local)[None, :]
            query = tl.load(at, mask=mask, other=0.0)
            key = tl.load(at + slot, mask=mask, other=0.0)
            value = tl.load(at + 2 * slot, mask=mask, other=0.0)
            d_kept = tl.load(at + 3 * slot, mask=mask, other=0.0)
            tl.debug_barrier()  # other threads have read what this one overwrites
            bias = tl.load(value_bias + first + part + local, mask=exists, other=0.0).to(TOTAL)[None, :]
            store_head(
                at, slot, mask, weights, d_scores,
                query, key, value, d_kept, bias, OPERAND, PRECISION, TOTAL,
            )  # fmt: skip


@triton.jit
def recompute(
    gradient_rows,
    memory_rows,
    update_rows,
    row_exists,
    query_weight,
    query_bias,
    key_weight,
    value_weight,
    output_weight,
    column,
    column_exists,
    D: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INNER: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    TOTAL: tl.constexpr,
):
    """Some columns of query, key and value, and of the gradient of what is kept."""
    query, key, value = read_maps(
        memory_rows, update_rows, row_exists, query_weight, key_weight, value_weight, column, column_exists,
        D, ACTIVATION, True, True, INNER, OPERAND, PRECISION, TOTAL,
    )  # fmt: skip
    query += tl.load(query_bias + column, mask=column_exists, other=0.0).to(TOTAL)[None, :]
    d_kept = tl.zeros(query.shape, TOTAL)
    for start in range(0, D, INNER):
        inner = start + tl.arange(0, INNER)
        mask = row_exists[:, None] & inside(inner, D, INNER)[None, :]
        gradient = tl.load(gradient_rows[:, None] + inner[None, :], mask=mask, other=0.0)
        mask = column_exists[None, :] & inside(inner, D, INNER)[:, None]
        weight = tl.load(output_weight + inner[:, None] * D + column[None, :], mask=mask, other=0.0)
        d_kept = multiply(gradient, weight, d_kept, OPERAND, PRECISION)
    return query.to(OPERAND), key.to(OPERAND), value.to(OPERAND), d_kept.to(OPERAND)


@triton.jit
def differentiate(scores, d_weights, entry, D_HEAD: tl.constexpr, OPERAND: tl.constexpr):
    """The attention weights, and the gradient of the scores."""
    weights = attention_weights(scores, entry, D_HEAD)
    d_scores = weights * (d_weights - tl.sum(weights * d_weights, 1)[:, None]) * (1.0 / D_HEAD**0.5)
    return weights.to(OPERAND), d_scores.to(OPERAND)


@triton.jit
def store_head(
    at,
    slot,
    mask,
    weights,
    d_scores,
    query,
    key,
    value,
    d_kept,
    value_bias,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    TOTAL: tl.constexpr,
):
    """The four results of some columns of a head."""
    zero = tl.zeros(key.shape, TOTAL)
    d_query = multiply(d_scores, key, zero, OPERAND, PRECISION)
    tl.store(at, d_query.to(OPERAND), mask=mask)
    d_key = multiply(tl.trans(d_scores), query, zero, OPERAND, PRECISION)
    tl.store(at + slot, d_key.to(OPERAND), mask=mask)
    d_value = multiply(tl.trans(weights), d_kept, zero, OPERAND, PRECISION)
    tl.store(at + 2 * slot, d_value.to(OPERAND), mask=mask)
    kept = multiply(weights, value, zero, OPERAND, PRECISION) + value_bias
    tl.store(at + 3 * slot, kept.to(OPERAND), mask=mask)


def plan_heads(call: Call, gradient: Tensor, work: Tensor) -> Launch:
    """The launch that writes ``work [4, B, m, d]``, in the dtype of the operands."""
    batch, tokens, d = call.memory.shape
    settings = call.settings("gate_backward_heads")
    parameters = [name for name in GateParameters._fields if name not in ("key_bias", "output_bias")]
    arguments = {
        **call.arguments(*parameters, gradient=gradient),
        "work": work,
        "batch": batch,
        "ROWS": settings["rows"],
        "COLUMNS": min(settings["columns"], power_of_two(d // call.num_heads)),
        "INNER": min(settings["inner"], power_of_two(d)),
    }
    grid = (-(-batch // (settings["rows"] // tokens)), call.num_heads)
    return Launch(gate_backward_heads, grid, arguments, settings["num_warps"], settings["num_stages"])
