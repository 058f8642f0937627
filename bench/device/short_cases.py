"""Every backend of ours once in ragged small sizes, checked: what memory and race checkers are run over.

compute-sanitizer --tool racecheck python -m bench.device.short_cases [--device cuda]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys

import torch

from bench.groups import attention, gate
from bench.runner import Comparison, Settings, build
from bench.sizes import AttentionSize
from rate_kernels import SegmentLayout

SIZES = (
    AttentionSize("memory and cache", 2, 2, 16, 32, SegmentLayout(3, cache_len=17), 21),
    AttentionSize("no memory", 1, 3, 32, 16, SegmentLayout(0), 65),
    AttentionSize(
        "memory that reads the cache", 1, 1, 64, 64, SegmentLayout(15, cache_len=9, read_cache=True), 33
    ),
)


def cases(settings: Settings) -> list[Comparison]:
    """Attention in three sizes, gate, packing, roll and some steps of acting."""
    from bench.groups import recurrence

    found = []
    for size in SIZES:
        problem = functools.cache(functools.partial(attention.Problem, size, settings))
        for mode in attention.MODES:
            variants = attention.variants(size, mode, settings, problem)
            found.append(Comparison("attention", size.name, mode, [v for v in variants if v.ours]))
    for module in (gate, recurrence):
        found += list(module.comparisons(settings))
    try:
        from bench.groups import acting
    except ImportError as error:
        print(f"acting is left out: {error}")
    else:
        found += list(acting.comparisons(settings))[:1]
    return found


def main() -> int:
    """Runs all cases; 1 if one is wrong or fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    settings = Settings(torch.device(parser.parse_args().device), "tiny", compiled=False)
    failures = 0
    for dtype in (torch.float32,) if settings.device.type == "cpu" else (torch.float32, torch.bfloat16):
        for case in cases(dataclasses.replace(settings, dtype=dtype)):
            for variant in case.variants:
                if not variant.ours:
                    continue
                timed, reason, failed = build(variant)
                if timed is not None:
                    timed.call()
                    if settings.device.type == "cuda":
                        torch.cuda.synchronize()
                failures += failed
                said = "ok" if timed is not None else reason
                print(f"{case.group}, {case.size}, {case.mode}, {variant.name}: {said}")
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
