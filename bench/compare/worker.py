"""One version in one process: builds the cases it is told to, and times one sample when it is told to.

Started by :mod:`bench.compare.interleaved` as a script, with the version's source tree and this ``bench`` on the path.
Reads one JSON command per line, answers with one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    """Serves commands until the input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever prints must not mix with the answers
    tree, device_name, scale, threads = sys.argv[1:]
    import torch

    import rate_kernels

    if not str(rate_kernels.__file__).startswith(tree):
        raise SystemExit(f"rate_kernels was imported from {rate_kernels.__file__}, not from {tree}")
    torch.set_num_threads(int(threads))
    from bench.compare.cases import CASES
    from bench.runner import Settings, Timed
    from bench.timing import Clock

    settings = Settings(torch.device(device_name), scale)
    # On a CPU the processor's time: a busy machine stretches the wall clock of one side and not of the other.
    host_clock = time.perf_counter if settings.device.type == "cuda" else time.process_time
    clock = Clock(settings.device, sample_seconds=0.012, host_clock=host_clock)
    ready: dict[str, Timed] = {}
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        case = command["case"]
        if command["do"] == "build":
            try:
                ready[case] = CASES[case](settings)
                answer = {"calls": clock.warm_up(ready[case].call)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
        else:
            # The least of three: an interruption makes a sample longer, never shorter.
            samples = [clock.sample(ready[case].call, command["calls"]) for _ in range(3)]
            answer = {"seconds": min(samples)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
