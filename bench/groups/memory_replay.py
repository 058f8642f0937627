"""Seconds and memory of one training batch as its segments grow, with and without memory replay.

Both compute the loss of all segments with gradients through the memory; replay keeps one segment's activations and
computes them again. The check: same loss and same gradients from the same seed, dropout included.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.runner import Comparison, Settings, Timed, Variant, check
from rate import RATE, RateConfig
from rate.data.windows import SegmentBatch
from rate.recurrence import batch_loss

SEGMENTS = {"tiny": (1, 2), "cpu": (1, 2, 4, 8, 16), "gpu": (1, 2, 4, 8, 16, 32, 64)}
_KEPT, _REPLAYED = "ours, all activations kept", "ours, memory replay"


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """Growing numbers of segments of 50 steps."""
    batch = {"tiny": 2, "cpu": 8, "gpu": 128}[settings.scale]
    steps = 4 if settings.scale == "tiny" else 50
    for segments in SEGMENTS[settings.scale]:
        parameters = {"batch": batch, "steps": steps, "segments": segments}
        variants = [
            Variant(name, functools.partial(_build, settings, batch, steps, segments, replay), True)
            for name, replay in ((_KEPT, False), (_REPLAYED, True))
        ]
        size = f"T-Maze script, batch {batch}, {segments} segment{'s' if segments > 1 else ''}"
        yield Comparison("memory-replay", size, "forward + backward", variants, parameters, memory=True)


def _build(settings: Settings, batch: int, steps: int, segments: int, replay: bool) -> Timed:
    torch.manual_seed(0)
    config = RateConfig(
        segment_length=steps,
        num_memory=15,
        gate_heads=2,
        d_model=64,
        num_layers=10,
        d_head=32,
        d_inner=0,
        dropout=0.2,
    )
    model = RATE(config).to(settings.device).train()
    length = steps * segments
    data = SegmentBatch(
        torch.randint(-1, 2, (batch, length, 4)).float(),
        torch.randint(0, 4, (batch, length)),
        torch.ones(batch, length, 1),
        torch.ones(batch, length, dtype=torch.bool),
        torch.arange(length).expand(batch, -1),
    ).to(settings.device)

    def step(replay: bool = replay) -> Tensor:
        model.zero_grad(set_to_none=True)
        loss = batch_loss(model, data, replay=replay).loss
        loss.backward()
        return loss.detach()

    def seeded(replay: bool) -> dict[str, Tensor]:
        torch.manual_seed(1)
        loss = step(replay)
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return {"loss": loss, **gradients}

    error = None
    if replay and segments <= 4:  # beyond, keeping all activations is what may not fit
        ours, theirs = seeded(True), seeded(False)
        error = check({name: (ours[name], theirs[name]) for name in theirs}, 1e-4)
    return Timed(step, error)
