"""The microbenchmarks under pytest-benchmark: ``pytest bench --benchmark-only``.

Attention, gate, packing, roll, the acting step and the whole training step, ours and the quick baselines, each
checked before it is timed. What pytest-benchmark shows is the wall clock, the device waited for; ``extra_info`` holds
what the suite's own clock says (on a GPU, events around batches of launches), the peak memory and the check's error.
``python -m bench run`` measures more, and keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench import groups
from bench.conftest import settings_of
from bench.runner import Comparison, Settings, Unavailable, Variant
from bench.timing import Clock, peak_bytes, synchronize

GROUPS = ("attention", "gate", "recurrence", "acting", "training-step")
_EXPENSIVE = ("FlexAttention", "compiled", "published shift", "reference (", "published, no host copies")
"""On a CPU: without these the whole takes minutes."""
_SIZES = {
    "attention": ("RATE, T-Maze, batch 32", "RATE, Memory Maze", "RATE, T-Maze, batch 1", "1024 tokens"),
    "acting": (", 1 environment", ", 8 environments"),
    "gate": ("T-Maze", "acting"),
    "recurrence": ("Memory Maze", "acting"),
}
"""On a CPU: of these groups only these sizes."""
_MILLISECONDS = 1000.0
"""Of one benchmark: after so much it is not repeated."""


def _chosen(settings: Settings) -> Iterator[tuple[Comparison, Variant]]:
    for group in GROUPS:
        for comparison in groups.comparisons(group, settings):
            sizes = _SIZES.get(group, ())
            if settings.scale == "cpu" and sizes and not any(size in comparison.size for size in sizes):
                continue
            for variant in comparison.variants:
                if settings.scale == "gpu" or not any(part in variant.name for part in _EXPENSIVE):
                    yield comparison, variant


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    settings = settings_of(metafunc.config)
    cases = list(_chosen(settings))
    names = [f"{c.group}-{c.size}-{c.mode}-{v.name}" for c, v in cases]
    metafunc.parametrize(
        ("settings", "comparison", "variant"), [(settings, *case) for case in cases], ids=names
    )


def _samples(sample: Callable[[], float], rounds: int) -> list[float]:
    """Milliseconds, ``rounds`` of them or as many as fit the budget."""
    samples: list[float] = []
    started = time.perf_counter()
    while len(samples) < rounds and 1e3 * (time.perf_counter() - started) < _MILLISECONDS:
        samples.append(1e3 * sample())
    return samples


def test_speed(benchmark: Any, settings: Settings, comparison: Comparison, variant: Variant) -> None:
    benchmark.group = f"{comparison.group}: {comparison.size}, {comparison.mode}"
    try:
        timed = variant.build()
    except Unavailable as reason:
        pytest.skip(str(reason))
    clock = Clock(settings.device)
    information: dict[str, Any] = dict(comparison.parameters) | {"error": timed.error}
    if timed.sample is not None:
        samples = _samples(timed.sample, settings.rounds)
        benchmark.extra_info.update(information | {"milliseconds": samples})
        benchmark.pedantic(timed.sample, rounds=1)  # of a whole segment: see extra_info for one step
        return
    calls = clock.warm_up(timed.call, timed.prepare)
    if comparison.memory:
        information["peak_bytes"] = peak_bytes(timed.call, settings.device)
    samples = _samples(lambda: clock.sample(timed.call, calls, timed.prepare), settings.rounds)
    benchmark.extra_info.update(information | {"milliseconds": samples})

    def setup() -> None:
        if timed.prepare is not None:
            timed.prepare()

    def run() -> None:
        timed.call()
        synchronize(settings.device)

    benchmark.pedantic(run, setup=setup, rounds=len(samples))
