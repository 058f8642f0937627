"""Where the time of attention goes, kernel by kernel: forward and backward of two sizes and one training step.

python -m bench.device.profile [--device cuda]
ncu --profile-from-start off python -m bench.device.profile --marked
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch

from bench.groups import attention
from bench.runner import Settings
from bench.sizes import attention_sizes
from rate_kernels.attention import api


def work(settings: Settings) -> dict[str, Callable[[], object]]:
    """What is profiled, by name; the first backend of ours that runs does attention."""
    backend = next(name for name, obstacle in api.obstacles(settings.device).items() if obstacle is None)
    sizes = attention_sizes(settings.scale)
    chosen = {sizes[0].name: sizes[0]}
    for size in sizes:
        if ("T-Maze" in size.name and size.kind == "real") or size.tokens == 4096:
            chosen[size.name] = size
    calls: dict[str, Callable[[], object]] = {}
    for name, size in chosen.items():
        problem = attention.Problem(size, settings)

        def attend(*arguments, backend: str = backend):  # type: ignore[no-untyped-def]
            return attention.our_attention(*arguments, backend=backend)

        calls[f"attention, {backend}, {name}"] = lambda p=problem, a=attend: p.both(a)  # type: ignore[misc]
    return calls


def main() -> int:
    """Prints a table per piece of work, or with ``--marked`` runs each once between the profiler's marks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--marked", action="store_true", help="for ncu: one call of each between start and stop"
    )
    options = parser.parse_args()
    device = torch.device(options.device)
    gpu = device.type == "cuda"
    settings = Settings(device, "gpu" if gpu else "tiny", torch.bfloat16 if gpu else torch.float32)
    for name, call in work(settings).items():
        for _ in range(3):
            call()
        print(f"\n{name}")
        if options.marked:
            torch.cuda.synchronize()
            torch.cuda.profiler.start()
            call()
            torch.cuda.synchronize()
            torch.cuda.profiler.stop()
            continue
        activities = [torch.profiler.ProfilerActivity.CPU]
        if gpu:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(10):
                call()
            if gpu:
                torch.cuda.synchronize()
        key = "self_cuda_time_total" if gpu else "self_cpu_time_total"
        print(profile.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=60))
    return 0


if __name__ == "__main__":
    sys.exit(main())
