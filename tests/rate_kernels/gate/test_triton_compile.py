"""The gate's Triton kernels compiled for GPUs that need not be here."""

from pathlib import Path

import pytest
import torch

from rate_kernels import GateParameters, ahead_of_time, configurations

TABLE = Path(__file__).parents[3] / "rate_kernels" / "gate" / "triton" / "configurations.json"
KERNELS = ("gate_forward", "gate_backward_heads", "gate_backward_maps")
REAL = [(15, 64, 2), (15, 128, 4), (20, 128, 1), (20, 512, 8)]
"""Memory tokens, d and heads of published experiments, d up to the kernels' largest."""
SHAPES = [*REAL, (64, 512, 1)]
QUICK = [(90, "bfloat16", (15, 64, 2)), (90, "bfloat16", (20, 512, 8))]
CASES = [
    pytest.param(
        architecture,
        dtype,
        shape,
        marks=() if (architecture, dtype, shape) in QUICK else pytest.mark.slow,
        id=f"sm_{architecture} {dtype} {shape}",
    )
    for architecture in (80, 90, 100)
    for dtype in ("bfloat16", "tf32", "float32")
    for shape in SHAPES
]


def launches(shape, dtype, architecture, batch=128):
    """The three launches of a call on tensors that hold nothing."""
    pytest.importorskip("triton")
    from rate_kernels.gate.triton import backward_heads, backward_maps, forward
    from rate_kernels.gate.triton.launch import Call

    m, d, heads = shape
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    kind = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    empty = lambda *sizes: torch.empty(sizes, dtype=kind, device="meta")
    tokens = [empty(batch, m, d) for _ in range(4)]
    parameters = GateParameters(*(empty(*sizes) for sizes in [(d, d), (d,)] * 4))
    call = Call(*tokens[:2], parameters, heads, "relu", str(kind).removeprefix("torch."), architecture)
    work = empty(4, batch, m, d)
    return [
        forward.plan(call, tokens[2]),
        backward_heads.plan_heads(call, tokens[3], work),
        backward_maps.plan_maps(call, tokens[3], work, [*tokens[:2], *parameters], backward_maps.PRODUCTS),
    ]


@pytest.fixture(autouse=True)
def precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("architecture", "dtype", "shape"), CASES)
def test_fits_without_spilling(architecture, dtype, shape):
    for launch in launches(shape, dtype, architecture):
        name = launch.kernel.__name__
        compiled = ahead_of_time.compile_kernel(
            launch.kernel,
            launch.arguments,
            architecture,
            num_warps=launch.num_warps,
            num_stages=launch.num_stages,
            enable_fp_fusion=True,
        )
        # A row serves every later architecture that has none of its own; 86 and 89 have the least shared memory.
        served = (80, 86, 89) if architecture == 80 else (architecture,)
        assert compiled.shared <= min(map(ahead_of_time.SHARED_MEMORY.__getitem__, served)), name
        allowed = 0 if shape in REAL else 64
        assert compiled.spills <= allowed, (name, compiled.registers, compiled.spills)
        assert bool(compiled.tensor_cores) == (dtype != "float32"), name
        if architecture == 90 and dtype != "float32" and launch.arguments.get("ROWS", 0) >= 64:
            assert "wgmma" in compiled.tensor_cores, name


def test_every_row_is_compiled():
    rows = {id(row["settings"]) for row in configurations.load(TABLE)}
    for case in CASES:
        architecture, dtype, (m, d, _) = case.values
        for kernel in KERNELS:
            found = configurations.find(TABLE, kernel, architecture, dtype, {"m": m, "d": d})
            rows.discard(id(found))
    assert not rows
