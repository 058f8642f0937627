"""The host's time per call, in smallest sizes: what is left of an operation when there is nothing to compute.

On a GPU the host does not wait for the device, so this is what launching costs; on a CPU it includes the work itself,
which is microseconds here. A plain addition and a plain ``scaled_dot_product_attention`` stand beside for scale.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional as F

from bench.groups import attention, gate
from bench.runner import Comparison, Settings, Timed, Unavailable, Variant
from bench.sizes import AttentionSize
from bench.timing import host_overhead
from rate_kernels import GateParameters, SegmentLayout, retention_gate
from rate_kernels.attention import api as attention_api
from rate_kernels.gate import api as gate_api

SIZE = AttentionSize("one environment, 2 steps", 1, 2, 16, 16, SegmentLayout(1), 6)
_CALLS = 200


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """Forward without, and forward + backward with gradients."""
    calls = 20 if settings.scale == "tiny" else _CALLS
    for mode in attention.MODES:
        found = [
            Variant("one addition", functools.partial(_addition, mode, settings, calls)),
            Variant("SDPA alone, no positions", functools.partial(_sdpa, mode, settings, calls)),
        ]
        for name, obstacle in attention_api.obstacles(settings.device).items():
            build = functools.partial(_attention, name, obstacle, mode, settings, calls)
            found.append(Variant(f"ours, memory_attention, {name}", build, True))
        for name, obstacle in gate_api.obstacles(settings.device).items():
            build = functools.partial(_gate, name, obstacle, mode, settings, calls)
            found.append(Variant(f"ours, retention_gate, {name}", build, True))
        yield Comparison("overhead", SIZE.name, mode, found, SIZE.parameters())


def _timed(call: Callable[[], object], settings: Settings, calls: int) -> Timed:
    for _ in range(10):
        call()
    return Timed(call, sample=lambda: host_overhead(call, settings.device, calls))


def _in_mode(run: Callable[[], torch.Tensor], leaves: list[torch.Tensor], mode: str) -> Callable[[], object]:
    if mode == "forward":

        def forward() -> torch.Tensor:
            with torch.no_grad():
                return run()

        return forward
    gradient = torch.ones_like(run())
    return lambda: torch.autograd.grad(run(), leaves, gradient)


def _addition(mode: str, settings: Settings, calls: int) -> Timed:
    x, y = (torch.randn(64, device=settings.device, requires_grad=True) for _ in range(2))
    return _timed(_in_mode(lambda: x + y, [x, y], mode), settings, calls)


def _sdpa(mode: str, settings: Settings, calls: int) -> Timed:
    q, k, v = (
        torch.randn(1, SIZE.heads, SIZE.queries, SIZE.d_head, device=settings.device, dtype=settings.dtype)
        for _ in range(3)
    )
    leaves = [x.requires_grad_() for x in (q, k, v)]
    return _timed(_in_mode(lambda: F.scaled_dot_product_attention(q, k, v), leaves, mode), settings, calls)


def _attention(backend: str, obstacle: str | None, mode: str, settings: Settings, calls: int) -> Timed:
    if obstacle:
        raise Unavailable(obstacle)
    problem = attention.Problem(SIZE, settings)
    attend = functools.partial(attention.our_attention, backend=backend)
    return _timed(_in_mode(lambda: problem.run(attend), problem.leaves, mode), settings, calls)


def _gate(backend: str, obstacle: str | None, mode: str, settings: Settings, calls: int) -> Timed:
    if obstacle:
        raise Unavailable(obstacle)
    problem = gate.Problem(settings, 1, 2, 32, 2)
    parameters = GateParameters(*problem.parameters)

    def run() -> torch.Tensor:
        return retention_gate(problem.memory, problem.update, parameters, num_heads=2, backend=backend)

    return _timed(_in_mode(run, problem.leaves, mode), settings, calls)
