"""The attention baselines compute what ours does, so that a ratio of their times means something."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from bench.baselines import attention as baselines
from bench.groups.attention import Problem, our_attention
from bench.oracle import attention_rows, checked_rows
from bench.runner import Settings, WrongResult
from bench.sizes import AttentionSize
from rate_kernels import RelativePosition, SegmentLayout, memory_attention

SETTINGS = Settings(torch.device("cpu"), "tiny", torch.float64, compiled=False)
SIZES = [
    AttentionSize("memory and cache", 2, 2, 8, 12, SegmentLayout(3, cache_len=7), 16),
    AttentionSize("no write memory", 1, 2, 8, 12, SegmentLayout(3, write_memory=False), 9),
    AttentionSize("no memory", 2, 1, 8, 12, SegmentLayout(0, cache_len=4), 11),
    AttentionSize("memory reads the cache", 1, 2, 8, 12, SegmentLayout(2, cache_len=5, read_cache=True), 10),
]
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)


@sizes
def test_oracle_is_the_reference(size: AttentionSize) -> None:
    """All rows of the oracle, and its gradients, are those of the package's specification."""
    problem = Problem(size, SETTINGS)
    rows = list(range(size.queries))
    ours = attention_rows(problem.leaves, size.layout, rows)
    theirs = memory_attention(
        *problem.leaves[:3], size.layout, RelativePosition(*problem.leaves[3:]), backend="reference"
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for a, b in zip(
        *(torch.autograd.grad(x, problem.leaves, problem.gradient) for x in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@sizes
@pytest.mark.parametrize("attend", [baselines.sdpa_with_bias, baselines.sdpa_separable])
def test_signed_baselines(size: AttentionSize, attend: baselines.Attention) -> None:
    assert Problem(size, SETTINGS).check(attend, backward=True, memory_rows=True) < 1e-9


@sizes
@pytest.mark.parametrize("attend", [baselines.flex_with_bias, baselines.flex_separable])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention(size: AttentionSize, attend: baselines.Attention) -> None:
    settings = Settings(torch.device("cpu"), "tiny", torch.float32, compiled=False)
    assert Problem(size, settings).check(attend, backward=False, memory_rows=True) < 1e-5


@sizes
@pytest.mark.parametrize("host_copies", [True, False])
def test_published(size: AttentionSize, host_copies: bool) -> None:
    """Every row and gradient equals ours with the published shift."""
    problem = Problem(size, SETTINGS)
    position = RelativePosition(*problem.leaves[3:], shift="transformer_xl")
    expected = memory_attention(*problem.leaves[:3], size.layout, position, backend="reference")
    actual = problem.run(functools.partial(baselines.published, host_copies=host_copies))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)  # its softmax is in float32
    pairs = (torch.autograd.grad(x, problem.leaves, problem.gradient) for x in (actual, expected))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@sizes
@pytest.mark.parametrize("what", ["output", "gradient", "not a number"])
def test_a_wrong_answer_is_not_timed(size: AttentionSize, what: str) -> None:
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:
            return 1.01 * gradient

    def wrong(*arguments) -> Tensor:
        out = our_attention(*arguments, backend="reference")
        if what == "gradient":
            return Scaled.apply(out)
        spoiled = out.clone()
        spoiled[0, -1] = 1.01 * spoiled[0, -1] if what == "output" else torch.nan
        return spoiled

    with pytest.raises(WrongResult, match="gradient of" if what == "gradient" else "differs"):
        Problem(size, SETTINGS).check(wrong, backward=True, memory_rows=True)


def test_checked_rows_hold_the_ends_of_every_part() -> None:
    layout = SegmentLayout(4, cache_len=10)
    rows = checked_rows(layout, 100, memory=True)
    assert {0, 3, 4, 103, 104, 107} <= set(rows) and len(rows) < 40
    assert all(4 <= row < 104 for row in checked_rows(layout, 100, memory=False))


@sizes
def test_visible_pairs(size: AttentionSize) -> None:
    expected = int(size.layout.mask(size.tokens).sum()) * size.batch * size.heads
    if not size.layout.write_memory:
        pytest.skip("no size that is measured leaves the write memory out")
    assert size.visible_pairs() == expected
