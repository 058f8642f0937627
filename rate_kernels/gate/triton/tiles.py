"""What the gate's kernels share: the rows of a program, the activation, the maps of a chunk of columns, the weights."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rows_of(group, batch, tokens, ROWS: tl.constexpr):
    """The rows of a program that takes as many whole batch entries as fit: ``ROWS // tokens`` of them.

    Returns each row's entry within the program, batch index, token, and whether there is such a row. Rows past the
    last entry count as entries of their own, so that no softmax is empty.
    """
    row = tl.arange(0, ROWS)
    entry = row // tokens
    index = group * (ROWS // tokens) + entry
    exists = (entry < ROWS // tokens) & (index < batch)
    return entry, index, row - entry * tokens, exists


@triton.jit
def inside(index, SIZE: tl.constexpr, STEP: tl.constexpr):
    """``index < SIZE``; where SIZE is a multiple of STEP, by which tiles advance, a constant that costs nothing."""
    if SIZE % STEP == 0:
        return tl.full(index.shape, 1, tl.int1)
    else:
        return index < SIZE


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """The activation of ``x``, which is float32 or float64."""
    if ACTIVATION == "relu":
        return tl.where(x < 0, 0.0, x)  # keeps NaN, as torch does
    elif ACTIVATION == "leaky_relu":
        return tl.where(x > 0, x, x * 0.01)
    elif ACTIVATION == "tanh":
        return tanh(x)
    else:
        return x


@triton.jit
def slope(x, ACTIVATION: tl.constexpr):
    """The derivative of :func:`activate` at ``x``."""
    if ACTIVATION == "relu":
        return tl.where(x > 0, tl.full(x.shape, 1.0, x.dtype), 0.0)
    elif ACTIVATION == "leaky_relu":
        return tl.where(x > 0, tl.full(x.shape, 1.0, x.dtype), tl.full(x.shape, 0.01, x.dtype))
    elif ACTIVATION == "tanh":
        y = tanh(x)
        return 1.0 - y * y
    else:
        return tl.full(x.shape, 1.0, x.dtype)


@triton.jit
def tanh(x):
    """tanh, accurate in relation to ``x`` too: where the quotient would cancel in float32, by its series."""
    decay = tl.exp(-2.0 * tl.abs(x))
    quotient = (1.0 - decay) / (1.0 + decay)
    quotient = tl.where(x < 0, -quotient, quotient)
    if x.dtype == tl.float64:
        return quotient
    square = x * x
    series = -17.0 / 315.0 + square * (62.0 / 2835.0)
    series = -1.0 / 3.0 + square * (2.0 / 15.0 + square * series)
    return tl.where(tl.abs(x) < 0.25, x + x * square * series, quotient)


@triton.jit
def multiply(a, b, total, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """``total + a @ b`` with factors rounded to OPERAND."""
    return tl.dot(a.to(OPERAND), b.to(OPERAND), total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
def read_maps(
    memory_rows,
    update_rows,
    row_exists,
    query_weight,
    key_weight,
    value_weight,
    column,
    column_exists,
    D: tl.constexpr,
    ACTIVATION: tl.constexpr,
    SCORES: tl.constexpr,
    VALUES: tl.constexpr,
    INNER: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    TOTAL: tl.constexpr,
):
    """Some columns of the query, key and value maps, without biases: ``x W[columns]^T`` in one pass over d.

    Query and key are made with SCORES, the value with VALUES; what is not made is zero. ``*_rows`` are the rows'
    addresses.
    """
    query = tl.zeros([row_exists.shape[0], column.shape[0]], TOTAL)
    key = tl.zeros([row_exists.shape[0], column.shape[0]], TOTAL)
    value = tl.zeros([row_exists.shape[0], column.shape[0]], TOTAL)
    for start in range(0, D, INNER):
        inner = start + tl.arange(0, INNER)
        exists = row_exists[:, None] & inside(inner, D, INNER)[None, :]
        weight_at = column[None, :] * D + inner[:, None]
        weight_exists = column_exists[None, :] & inside(inner, D, INNER)[:, None]
        update = tl.load(update_rows[:, None] + inner[None, :], mask=exists, other=0.0)
        update = activate(update.to(TOTAL), ACTIVATION)
        if SCORES:
            memory = tl.load(memory_rows[:, None] + inner[None, :], mask=exists, other=0.0)
            weight = tl.load(query_weight + weight_at, mask=weight_exists, other=0.0)
            query = multiply(memory, weight, query, OPERAND, PRECISION)
            weight = tl.load(key_weight + weight_at, mask=weight_exists, other=0.0)
            key = multiply(update, weight, key, OPERAND, PRECISION)
        if VALUES:
            weight = tl.load(value_weight + weight_at, mask=weight_exists, other=0.0)
            value = multiply(update, weight, value, OPERAND, PRECISION)
    return query, key, value


@triton.jit
def attention_weights(scores, entry, D_HEAD: tl.constexpr):
    """Softmax of ``scores / sqrt(d_head)`` over the rows of the same batch entry."""
    LOG2_E: tl.constexpr = 1.4426950408889634
    scores = tl.where(entry[:, None] == entry[None, :], scores * (LOG2_E / D_HEAD**0.5), float("-inf"))
    powers = tl.exp2(scores - tl.max(scores, 1)[:, None])
    return powers / tl.sum(powers, 1)[:, None]
