"""The cost of a step early and late in one long episode: it must not grow, nor must the process.

Two actors of one model take turns, one at the beginning of its episode and one that has 99,000 steps behind it, so that
a change of the machine's speed meets both. A sample is the mean over one segment, its end included; twenty of them are
the episode's first, or last, 1,000 steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from bench.baselines.training_step import TMAZE_SCRIPT
from bench.runner import Comparison, Settings, Timed, Variant
from rate import RATE, RateConfig

STEPS = 50
MODEL = RateConfig(
    segment_length=STEPS,
    num_memory=15,
    gate_heads=2,
    d_model=64,
    num_layers=10,
    d_head=32,
    d_inner=0,
    block="published",
)


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """One environment, natively: after no steps, and after 99,000."""
    behind = 1_000 if settings.scale == "tiny" else 99_000
    torch.manual_seed(0)
    model = RATE(MODEL).to(settings.device).eval()
    parameters: dict[str, object] = {**TMAZE_SCRIPT, "steps": STEPS}

    def after(steps: int) -> Timed:
        actor = model.actor(1, "native")
        actor.reset(1.0)
        random = np.random.default_rng(0)

        def segment() -> float:
            observations = random.normal(size=(STEPS, 1, 4)).astype(np.float32)
            started = time.perf_counter()
            for observation in observations:
                actor.act(observation)
            return (time.perf_counter() - started) / STEPS

        segment()
        before = _resident_bytes()
        for _ in range(steps // STEPS - 1):
            segment()
        parameters[f"grown_bytes after {steps} steps"] = _resident_bytes() - before
        return Timed(lambda: None, sample=segment)

    names = {"the first 1,000 steps": 0, f"the 1,000 after {behind:,}": behind}
    variants = [Variant(name, lambda steps=steps: after(steps), True) for name, steps in names.items()]  # type: ignore[misc]
    yield Comparison(
        "long-episode", "T-Maze script, 1 environment", "mean over a segment", variants, parameters, rounds=20
    )
    print({name: value for name, value in parameters.items() if name.startswith("grown")})


def _resident_bytes() -> int:
    """What the process holds in memory now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return 4096 * pages
