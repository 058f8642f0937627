"""The memory retention gate: every backend of ours against the published module and its compiled form."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.baselines.published_layers import PublishedMemoryGate
from bench.runner import TOLERANCE, Comparison, Settings, Timed, Unavailable, Variant, check
from rate_kernels import GateParameters, retention_gate
from rate_kernels.gate import api, reference

MODES = ("forward", "forward + backward")
#         name             batch: gpu, cpu   m   d   heads
SIZES = (
    ("RATE, T-Maze", 128, 32, 15, 64, 2),
    ("RATE, MiniGrid", 128, 32, 10, 128, 4),
    ("RATE, POPGym", 32, 32, 30, 32, 2),
    ("acting, one environment", 1, 1, 15, 64, 2),
    ("the largest", 32, 4, 64, 512, 8),
)
_NAMES = ("wq", "wk", "wv", "dense")
Gate = Callable[[Tensor, Tensor, list[Tensor]], Tensor]


class Problem:
    """Memory, what was written, the eight parameters, an upstream gradient; and the check in float64."""

    def __init__(self, settings: Settings, batch: int, m: int, d: int, heads: int) -> None:
        generator = torch.Generator(settings.device).manual_seed(0)

        def draw(*shape: int, factor: float = 1.0) -> Tensor:
            values = torch.randn(*shape, generator=generator, device=settings.device) * factor
            return values.to(settings.dtype).requires_grad_()

        self.dtype, self.heads = settings.dtype, heads
        self.memory, self.update = draw(batch, m, d), draw(batch, m, d)
        self.parameters = [x for _ in _NAMES for x in (draw(d, d, factor=d**-0.5), draw(d, factor=0.1))]
        self.gradient = draw(batch, m, d).detach()
        self.module = PublishedMemoryGate(d, heads).to(settings.device, settings.dtype)
        names = [f"{name}.{part}" for name in _NAMES for part in ("weight", "bias")]
        self.module.load_state_dict(dict(zip(names, self.parameters, strict=True)))

    @property
    def leaves(self) -> list[Tensor]:
        return [self.memory, self.update, *self.parameters]

    def both(self, gate: Gate, leaves: list[Tensor]) -> list[Tensor]:
        out = gate(self.memory, self.update, self.parameters)
        return [out, *torch.autograd.grad(out, leaves, self.gradient.to(out.dtype))]

    def check(self, gate: Gate, leaves: list[Tensor]) -> float:
        """Of out and the gradients of memory, update and weights; a shift of all keys changes nothing."""
        precise = [leaf.detach().double().requires_grad_() for leaf in self.leaves]
        expected = reference.retention_gate(
            precise[0], precise[1], GateParameters(*precise[2:]), self.heads, "relu"
        )
        theirs = torch.autograd.grad(expected, precise, self.gradient.double())
        out, *ours = self.both(gate, leaves)
        named = {"out": (out, expected)}
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            if index != 5:  # the key's bias: its gradient is zero but for rounding
                named[f"gradient {index}"] = pair
        return check(named, TOLERANCE[self.dtype])


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """Every size, forward and forward + backward."""
    sizes = (("tiny", 2, 2, 3, 16, 2),) if settings.scale == "tiny" else SIZES
    for name, gpu, cpu, m, d, heads in sizes:
        batch = gpu if settings.scale == "gpu" else cpu
        problem = functools.cache(functools.partial(Problem, settings, batch, m, d, heads))
        for mode in MODES:
            parameters = {"batch": batch, "memory": m, "d_model": d, "heads": heads}
            found = variants(mode, settings, problem, settings.compiled and name == sizes[0][0])
            yield Comparison("gate", f"{name}, batch {batch}", mode, found, parameters)


def variants(mode: str, settings: Settings, problem: Callable[[], Problem], compiled: bool) -> list[Variant]:
    """Ours by backend, then the published module, and if asked for its compiled form."""

    def timed(gate: Gate, leaves: Callable[[Problem], list[Tensor]]) -> Timed:
        here = problem()
        wanted = leaves(here)
        error = here.check(gate, wanted)
        if mode != "forward":
            return Timed(lambda: here.both(gate, wanted), error)

        def forward() -> Tensor:
            with torch.no_grad():
                return gate(here.memory, here.update, here.parameters)

        return Timed(forward, error)

    def ours(backend: str) -> Timed:
        obstacle = api.obstacles(settings.device)[backend]
        if obstacle:
            raise Unavailable(obstacle)

        def gate(memory: Tensor, update: Tensor, parameters: list[Tensor]) -> Tensor:
            heads = problem().heads
            return retention_gate(
                memory, update, GateParameters(*parameters), num_heads=heads, backend=backend
            )

        return timed(gate, lambda here: here.leaves)

    def published(compiled: bool) -> Timed:
        logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
        here = problem()
        module = torch.compile(here.module, dynamic=False) if compiled else here.module
        return timed(
            lambda memory, update, _: module(memory, update),
            lambda p: [p.memory, p.update, *p.module.parameters()],
        )

    found = [Variant(f"ours, {name}", functools.partial(ours, name), True) for name in api.BACKENDS]
    found.append(Variant("published", functools.partial(published, False)))
    if compiled:
        found.append(Variant("published, compiled", functools.partial(published, True)))
    return found
