"""Which settings the gate's kernels may take, and problems to try them on (``rate_kernels.tune``, tests)."""

from __future__ import annotations

import itertools

import torch

from rate_kernels.gate.parameters import GateParameters
from rate_kernels.gate.triton import backward_heads, backward_maps, forward, launch
from rate_kernels.triton_support import Launch

Sizes = dict[str, int]

TABLE = launch.TABLE
KERNELS = ("gate_forward", "gate_backward_heads", "gate_backward_maps")


def rows(kernel: str, dtype: str) -> list[Sizes]:
    """The sizes for which the table has a row of ``kernel`` and ``dtype``: upper bounds of the sizes that take it."""
    if kernel == "gate_backward_maps":
        return [{"d": 512}] if dtype == "float32" else [{"d": 64}, {"d": 512}]
    if dtype == "float32":
        return [{"m": 16, "d": 512}, {"m": 64, "d": 512}]
    smallest = [{"m": 16, "d": 64}] if kernel == "gate_forward" else []
    return [*smallest, {"m": 16, "d": 128}, {"m": 32, "d": 128}, {"m": 64, "d": 512}]


def prepare(
    kernel: str,
    sizes: Sizes,
    dtype: str,
    settings: launch.Settings,
    device: str = "cuda",
    architecture: int = 80,
) -> Launch:
    """A launch of ``kernel`` with these settings, on a problem of its own: 128 entries, heads of 32 or so."""
    m, d = sizes.get("m", 20), sizes["d"]
    made = torch.float32 if dtype == "tf32" else getattr(torch, dtype)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(made)

    memory, update, out, gradient = (tensor(128, m, d) for _ in range(4))
    parameters = GateParameters(*(tensor(*shape) for shape in [(d, d), (d,)] * 4))
    operand = str(made).removeprefix("torch.")
    call = launch.Call(
        memory, update, parameters, max(1, d // 64), "relu", operand, architecture, {kernel: settings}
    )
    work = tensor(4, 128, m, d)
    if kernel == "gate_forward":
        return forward.plan(call, out)
    if kernel == "gate_backward_heads":
        return backward_heads.plan_heads(call, gradient, work)
    gradients = [memory, update, *parameters]
    return backward_maps.plan_maps(call, gradient, work, gradients, backward_maps.PRODUCTS)


def candidates(kernel: str, sizes: Sizes) -> list[launch.Settings]:
    """Settings worth trying; not all of them fit every architecture."""
    pipelines = itertools.product((4, 8), (2, 3))
    if kernel == "gate_backward_maps":
        return [
            {"tile": tile, "step": step, "num_warps": warps, "num_stages": stages}
            for (warps, stages), tile, step in itertools.product(pipelines, (64, 32), (64, 32, 16))
        ]
    tall = [height for height in (16, 32, 64, 128) if height >= sizes["m"]]
    return [
        {"rows": height, "columns": columns, "inner": inner, "num_warps": warps, "num_stages": stages}
        for (warps, stages), height, columns, inner in itertools.product(
            pipelines, tall, (64, 128, 32, 16), (64, 32, 16)
        )
    ]
