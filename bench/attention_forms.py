"""The separable form on a CPU, five ways: which one the `sdpa` backend should take.

    python -m bench.attention_forms [--threads 2] [--repeats 9] [--save]

Forward and backward of one attention layer at the published T-Maze script's size (batch 32, 4 heads of 32, 64 position
channels, 15 memory tokens, 150 segment tokens), gradients of queries, rotated queries, keys and values. All forms are
checked against the first before they are timed, and timed in turn within each repeat.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.record import save
from rate_kernels import SegmentLayout
from rate_kernels.attention.blocked import blocked_attention

BATCH, HEADS, D_HEAD, D_POS, SEGMENT = 32, 4, 32, 64, 150
LAYOUT = SegmentLayout(15)


def forms() -> dict[str, Callable[[], list[Tensor]]]:
    """Each form computes the output and the four gradients."""
    length = LAYOUT.query_length(SEGMENT)
    generator = torch.Generator().manual_seed(0)

    def leaf(size: int) -> Tensor:
        return torch.randn(BATCH, HEADS, length, size, generator=generator).requires_grad_()

    query, rotated, key, value = leaf(D_HEAD), leaf(D_POS), leaf(D_HEAD), leaf(D_HEAD)
    table = torch.randn(length, D_POS, generator=generator)
    gradient = torch.randn(BATCH, HEADS, length, D_HEAD, generator=generator)
    visible = LAYOUT.mask(SEGMENT)
    additive = torch.zeros(length, length).masked_fill(~visible, -torch.inf)
    scale = D_HEAD**-0.5

    def longer() -> tuple[Tensor, Tensor]:
        keys = torch.cat([key, table.expand(BATCH, HEADS, -1, -1)], -1)
        return torch.cat([query, rotated], -1), keys

    def longer_inner() -> Tensor:
        q, k = longer()
        return F.scaled_dot_product_attention(q, k, value, attn_mask=visible, scale=scale)

    def longer_inner_padded_values() -> Tensor:
        q, k = longer()
        padded = F.pad(value, (0, D_POS))  # PyTorch's flash kernel for CPUs wants equal head sizes
        return F.scaled_dot_product_attention(q, k, padded, attn_mask=additive, scale=scale)[..., :D_HEAD]

    def materialised_bias() -> Tensor:
        bias = (rotated * scale) @ table.T + additive
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)

    def plain_products() -> Tensor:
        q, k = longer()
        return ((q * scale) @ k.transpose(-1, -2) + additive).softmax(-1) @ value

    def blocked() -> Tensor:
        flat = [x.flatten(0, 1) for x in (query, rotated, key, value)]
        numbers = [LAYOUT.num_memory, 1, 0, 0]
        out, _ = blocked_attention(*flat, table, None, None, None, numbers, scale, True)
        return out.view_as(query)

    def with_gradients(form: Callable[[], Tensor]) -> Callable[[], list[Tensor]]:
        def run() -> list[Tensor]:
            out = form()
            return [out, *torch.autograd.grad(out, [query, rotated, key, value], gradient)]

        return run

    named = (longer_inner, longer_inner_padded_values, materialised_bias, plain_products, blocked)
    return {form.__name__: with_gradients(form) for form in named}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--save", action="store_true", help="write the result under bench/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = forms()
    expected = found["longer_inner"]()
    samples: dict[str, list[float]] = {name: [] for name in found}
    for run in found.values():
        for ours, theirs in zip(run(), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    for _ in range(options.repeats):
        for name, run in found.items():
            started = time.perf_counter()
            run()
            samples[name].append(1e3 * (time.perf_counter() - started))
    medians = {name: statistics.median(times) for name, times in samples.items()}
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        print(f"{name:28s} {median:7.1f} ms")
    if options.save:
        print(save("attention-forms", {"milliseconds": samples, "medians": medians}))


if __name__ == "__main__":
    main()
