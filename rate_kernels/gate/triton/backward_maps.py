"""The gate's gradients, second of two launches: the products of its four linear maps.

    dW_q = dQ^T M        dW_k = dK^T act(U)        dW_v = dV^T act(U)        dW_o = G^T kept        db = column sums
    dM = dQ W_q          dU = (dK W_k + dV W_v) act'(U)

Every tile of every result belongs to one program, which adds up in order, so gradients repeat to the bit. The key
bias moves all scores of a row alike, so its gradient is zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from rate_kernels.gate.parameters import GateParameters
from rate_kernels.gate.triton.launch import Call, power_of_two
from rate_kernels.gate.triton.tiles import activate, inside, multiply, slope
from rate_kernels.triton_support import Launch

PRODUCTS = ("query", "key", "value", "output", "memory", "update")
"""What a program of the second launch belongs to: a weight and its bias, or a gradient of the inputs."""


@triton.jit(do_not_specialize=["products", "tokens", "rows"])
def gate_backward_maps(
    gradient,
    memory,
    update,
    query_weight,
    key_weight,
    value_weight,
    work,
    d_query_weight,
    d_query_bias,
    d_key_weight,
    d_key_bias,
    d_value_weight,
    d_value_bias,
    d_output_weight,
    d_output_bias,
    d_memory,
    d_update,
    gradient_batch,
    gradient_row,
    memory_batch,
    memory_row,
    update_batch,
    update_row,
    products,
    tokens,
    rows,
    D: tl.constexpr,
    D_HEAD: tl.constexpr,
    ACTIVATION: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    TOTAL: tl.constexpr,
):
    """Program (i, j) makes tile i of the j-th product asked for; ``products`` lists them, four bits each."""
    product = (products >> (4 * tl.program_id(1))) & 15
    tile = tl.program_id(0)
    tiles: tl.constexpr = (D + TILE - 1) // TILE
    slot = rows.to(tl.int64) * D
    if product >= 4:
        if tile < tl.cdiv(rows, TILE) * tiles:
            if product == 4:
                row_tile(
                    work, query_weight, query_weight, memory, memory_batch, memory_row, d_memory, slot,
                    tile, tokens, rows, 1, D, "none", TILE, STEP, OPERAND, PRECISION, TOTAL,
                )  # fmt: skip
            else:
                row_tile(
                    work + slot, key_weight, value_weight, update, update_batch, update_row, d_update, slot,
                    tile, tokens, rows, 2, D, ACTIVATION, TILE, STEP, OPERAND, PRECISION, TOTAL,
                )  # fmt: skip
    elif tile < tiles * (tiles + 1):
        # Rows of one work slot against rows of an input: d_weight = slot^T input, for the output map the transpose.
        x, x_batch, x_row = memory, memory_batch, memory_row
        d_weight, d_bias = d_query_weight, d_query_bias
        if product == 1:
            x, x_batch, x_row = update, update_batch, update_row
            d_weight, d_bias = d_key_weight, d_key_bias
        elif product == 2:
            x, x_batch, x_row = update, update_batch, update_row
            d_weight, d_bias = d_value_weight, d_value_bias
        elif product == 3:
            x, x_batch, x_row = gradient, gradient_batch, gradient_row
            d_weight, d_bias = d_output_weight, d_output_bias
        y = work + product * slot
        block = tl.arange(0, TILE)
        left = tile // (tiles + 1) * TILE + block
        right = tile % (tiles + 1) * TILE + block
        step = tl.arange(0, STEP)
        if tile % (tiles + 1) < tiles:
            total = tl.zeros([TILE, TILE], TOTAL)
            for start in range(0, rows, STEP):
                row = start + step
                index = (row // tokens).to(tl.int64)
                at = x + index * x_batch + (row - row // tokens * tokens) * x_row
                mask = (row < rows)[:, None] & inside(right, D, TILE)[None, :]
                inputs = tl.load(at[:, None] + right[None, :], mask=mask, other=0.0).to(TOTAL)
                activated = activate(inputs, ACTIVATION)
                inputs = tl.where((product == 1) | (product == 2), activated, inputs)
                mask = (row < rows)[:, None] & inside(left, D, TILE)[None, :]
                others = tl.load(y + (row.to(tl.int64) * D)[:, None] + left[None, :], mask=mask, other=0.0)
                total = multiply(tl.trans(others), inputs, total, OPERAND, PRECISION)
            left_stride, right_stride = D, 1
            if product == 3:
                left_stride, right_stride = 1, D
            at = d_weight + left[:, None] * left_stride + right[None, :] * right_stride
            mask = inside(left, D, TILE)[:, None] & inside(right, D, TILE)[None, :]
            tl.store(at, total.to(d_weight.dtype.element_ty), mask=mask)
        else:
            # The bias of as many columns: a plain sum of rows, in full precision.
            sums = tl.zeros([STEP, TILE], TOTAL)
            for start in range(0, tl.where(product == 1, 0, rows), STEP):
                row = start + step
                mask = (row < rows)[:, None] & inside(left, D, TILE)[None, :]
                if product == 3:
                    index = (row // tokens).to(tl.int64)
                    at = x + index * x_batch + (row - row // tokens * tokens) * x_row
                    sums += tl.load(at[:, None] + left[None, :], mask=mask, other=0.0).to(TOTAL)
                else:
                    at = y + row.to(tl.int64) * D
                    sums += tl.load(at[:, None] + left[None, :], mask=mask, other=0.0).to(TOTAL)
            tl.store(d_bias + left, tl.sum(sums, 0).to(d_bias.dtype.element_ty), mask=inside(left, D, TILE))


@triton.jit
def row_tile(
    work,
    weight,
    other_weight,
    x,
    x_batch,
    x_row,
    out,
    slot,
    tile,
    tokens,
    rows,
    MAPS: tl.constexpr,
    D: tl.constexpr,
    ACTIVATION: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    TOTAL: tl.constexpr,
):
    """A tile of an input's gradient: the gradients of one or two maps times their weights, times the slope at x."""
    tiles: tl.constexpr = (D + TILE - 1) // TILE
    row = tile // tiles * TILE + tl.arange(0, TILE)
    column = tile % tiles * TILE + tl.arange(0, TILE)
    at_row = row.to(tl.int64) * D
    total = tl.zeros([TILE, TILE], TOTAL)
    for number in tl.static_range(MAPS):
        for start in range(0, D, STEP):
            inner = start + tl.arange(0, STEP)
            mask = (row < rows)[:, None] & inside(inner, D, STEP)[None, :]
            d_map = tl.load(work + number * slot + at_row[:, None] + inner[None, :], mask=mask, other=0.0)
            at = inner[:, None] * D + column[None, :]
            mask = inside(inner, D, STEP)[:, None] & inside(column, D, TILE)[None, :]
            if number == 0:
                factor = tl.load(weight + at, mask=mask, other=0.0)
            else:
                factor = tl.load(other_weight + at, mask=mask, other=0.0)
            total = multiply(d_map, factor, total, OPERAND, PRECISION)
    mask = (row < rows)[:, None] & inside(column, D, TILE)[None, :]
    if ACTIVATION != "none":
        index = (row // tokens).to(tl.int64)
        at = x + index * x_batch + (row - row // tokens * tokens) * x_row
        total *= slope(tl.load(at[:, None] + column[None, :], mask=mask, other=0.0).to(TOTAL), ACTIVATION)
    tl.store(out + at_row[:, None] + column[None, :], total.to(out.dtype.element_ty), mask=mask)


def plan_maps(
    call: Call, gradient: Tensor, work: Tensor, gradients: Sequence[Tensor], products: Sequence[str]
) -> Launch:
    """The launch that makes some of the gradients from ``work [4, B, m, d]``.

    Args:
        call: as in the forward pass.
        gradient: of the result.
        work: what the first launch wrote.
        gradients: of memory, update and the eight parameters, contiguous; those of other products are not touched.
        products: which of PRODUCTS to make, one at least.
    """
    batch, tokens, d = call.memory.shape
    settings = call.settings("gate_backward_maps")
    tile = min(settings["tile"], power_of_two(d))
    names = ("d_memory", "d_update", *(f"d_{name}" for name in GateParameters._fields))
    arguments = {
        **call.arguments("query_weight", "key_weight", "value_weight", gradient=gradient),
        "work": work,
        **dict(zip(names, gradients, strict=True)),
        "products": sum(PRODUCTS.index(name) << 4 * place for place, name in enumerate(products)),
        "rows": batch * tokens,
        "TILE": tile,
        "STEP": settings["step"],
    }
    across, down = -(-d // tile), -(-batch * tokens // tile)
    weights = across * (across + 1) if set(products) & set(PRODUCTS[:4]) else 0
    inputs = across * down if set(products) & set(PRODUCTS[4:]) else 0
    grid = (max(weights, inputs), len(products))
    return Launch(gate_backward_maps, grid, arguments, settings["num_warps"], settings["num_stages"])
