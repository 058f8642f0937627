"""What two versions are compared on: what this package does by default, at the size of the published T-Maze script.

These use the public functions alone, so that they run on any version that has them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.groups import attention, gate
from bench.runner import Settings, Timed
from bench.sizes import AttentionSize
from rate_kernels import GateParameters, SegmentLayout, pack_segment, retention_gate

_TMAZE = AttentionSize("T-Maze", 16, 4, 32, 64, SegmentLayout(15), 150)
_MAZE = AttentionSize("Memory Maze", 2, 8, 64, 64, SegmentLayout(15, cache_len=360), 90)
_ONE = AttentionSize("one environment", 1, 4, 32, 64, SegmentLayout(15), 150)
_TINY = AttentionSize("tiny", 2, 2, 16, 32, SegmentLayout(3, cache_len=17), 21)


def _attention(size: AttentionSize, backward: bool) -> Callable[[Settings], Timed]:
    def build(settings: Settings) -> Timed:
        problem = attention.Problem(_TINY if settings.scale == "tiny" else size, settings)

        def attend(*arguments):  # type: ignore[no-untyped-def]
            return attention.our_attention(*arguments, backend=None)

        error = problem.check(attend, backward, memory_rows=True)
        if backward:
            return Timed(lambda: problem.both(attend), error)

        def forward() -> torch.Tensor:
            with torch.no_grad():
                return problem.run(attend, gradients=False)

        return Timed(forward, error)

    return build


def _gate(settings: Settings) -> Timed:
    problem = gate.Problem(settings, 32, 15, 64, 2)

    def run(memory, update, parameters):  # type: ignore[no-untyped-def]
        return retention_gate(memory, update, GateParameters(*parameters), num_heads=2)

    return Timed(lambda: problem.both(run, problem.leaves), problem.check(run, problem.leaves))


def _pack(settings: Settings) -> Timed:
    batch, layout = 32, SegmentLayout(15)
    memory = torch.randn(batch, 15, 64, device=settings.device)
    embedded = [torch.randn(batch, 50, 64, device=settings.device) for _ in range(3)]
    return Timed(lambda: pack_segment(memory, *embedded, layout))


def _training_step(settings: Settings) -> Timed:
    from rate import RATE, RateConfig

    torch.manual_seed(0)
    model = RATE(
        RateConfig(
            segment_length=50, num_memory=15, gate_heads=2, d_model=64, num_layers=2, d_head=32, d_inner=0
        )
    ).to(settings.device)
    observations = torch.randn(8, 50, 4, device=settings.device)
    actions = torch.randint(0, 4, (8, 50), device=settings.device)
    returns = torch.ones(8, 50, 1, device=settings.device)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        predictions = model(observations, actions, returns).predictions
        torch.nn.functional.cross_entropy(predictions.flatten(0, 1), actions.flatten()).backward()

    return Timed(step)


def _acting(settings: Settings) -> Timed:
    import numpy as np

    from rate import RATE, RateConfig

    torch.manual_seed(0)
    config = RateConfig(
        segment_length=10, num_memory=15, gate_heads=2, d_model=64, num_layers=2, d_head=32, d_inner=0
    )
    actor = RATE(config).to(settings.device).eval().actor(batch_size=8)
    actor.reset(1.0)
    observation = np.ones((8, 4), np.float32)

    def segment() -> None:  # ten steps: every call holds one segment's end
        for _ in range(10):
            actor.act(observation)

    return Timed(segment)


CASES: dict[str, Callable[[Settings], Timed]] = {
    "attention, T-Maze, forward": _attention(_TMAZE, False),
    "attention, T-Maze, forward + backward": _attention(_TMAZE, True),
    "attention, one environment, forward": _attention(_ONE, False),
    "attention, Memory Maze, forward + backward": _attention(_MAZE, True),
    "gate, forward + backward": _gate,
    "pack_segment, forward": _pack,
    "training step, 2 layers": _training_step,
    "acting, a segment of 8 environments": _acting,
}
