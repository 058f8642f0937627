"""Memory-token attention: the native kernel against PyTorch's matrix products, forward and backward.

    python -m bench.attention [--threads 2] [--repeats 15] [--save]

Sizes: a training batch and a single environment of T-Maze, short segments, Memory Maze with its cache, and one long
segment with wide heads. The backends are timed in turn within each repeat, after a matrix product of PyTorch's own,
as in a step.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from bench.record import save
from rate_kernels import RelativePosition, SegmentLayout, memory_attention

# batch, heads, d_head, d_pos, layout, segment tokens
SIZES = {
    "T-Maze, batch 32": (32, 4, 32, 64, SegmentLayout(15), 150),
    "T-Maze, batch 1": (1, 4, 32, 64, SegmentLayout(15), 150),
    "15 tokens, batch 32": (32, 4, 32, 64, SegmentLayout(5), 15),
    "15 tokens, batch 1": (1, 4, 32, 64, SegmentLayout(5), 15),
    "Memory Maze, batch 16": (16, 8, 64, 64, SegmentLayout(15, cache_len=360), 90),
    "500 tokens, heads of 128": (4, 8, 128, 128, SegmentLayout(15), 500),
}
BACKENDS = ("native", "sdpa", "reference")


def problem(name: str) -> tuple[list[Tensor], SegmentLayout, Tensor]:
    """Leaves (query, key, value, W, u, v), layout and the gradient of the output."""
    batch, heads, d_head, d_pos, layout, n = SIZES[name]
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    lq, lk = layout.query_length(n), layout.key_length(n)
    leaves = [leaf(batch, length, heads, d_head) for length in (lq, lk, lk)]
    leaves += [leaf(heads, d_head, d_pos), leaf(heads, d_head), leaf(heads, d_head)]
    return leaves, layout, torch.randn(batch, lq, heads, d_head, generator=generator)


def run(
    leaves: list[Tensor], layout: SegmentLayout, gradient: Tensor, backend: str
) -> tuple[list[Tensor], float]:
    """Output and gradients, and the seconds they took."""
    torch.mm(torch.ones(512, 512), torch.ones(512, 512))
    started = time.perf_counter()
    out = memory_attention(*leaves[:3], layout, RelativePosition(*leaves[3:]), backend=backend)
    gradients = torch.autograd.grad(out, leaves, gradient)
    return [out, *gradients], time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--save", action="store_true", help="write the result under bench/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    samples: dict[str, dict[str, list[float]]] = {}
    print(f"{'milliseconds, forward + backward':34s}" + "".join(f"{b:>11s}" for b in BACKENDS))
    for name in SIZES:
        leaves, layout, gradient = problem(name)
        expected, _ = run(leaves, layout, gradient, "reference")
        for backend in BACKENDS[:-1]:
            for ours, theirs in zip(run(leaves, layout, gradient, backend)[0], expected, strict=True):
                torch.testing.assert_close(
                    ours, theirs, rtol=1e-2, atol=1e-3 * float(theirs.detach().abs().max())
                )
        samples[name] = {backend: [] for backend in BACKENDS}
        for _ in range(options.repeats):
            for backend in BACKENDS:
                samples[name][backend].append(1e3 * run(leaves, layout, gradient, backend)[1])
        medians = [statistics.median(samples[name][backend]) for backend in BACKENDS]
        print(f"{name:34s}" + "".join(f"{median:11.2f}" for median in medians), flush=True)
    if options.save:
        print(save("attention", {"milliseconds": samples}))


if __name__ == "__main__":
    main()
