"""The attention kernels' source in Triton's interpreter: results, gradients, dropout, tiles, operators."""

import itertools

import pytest
import torch

from rate_kernels import RelativePosition, SegmentLayout, memory_attention, triton_support
from rate_kernels.attention.triton import dropout, launch, operator
from tests.rate_kernels.attention import cases

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.skipif(not triton_support.interpreted(), reason="needs TRITON_INTERPRET=1"),
]

LENGTHS = (1, 15, 63, 111, 180, 257)
MEMORIES_AND_CACHES = list(itertools.product((0, 1, 5, 15), (0, 17, 360)))


@pytest.fixture(autouse=True)
def poison():
    """Fresh memory is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def rounded(case: cases.Case, dtype: torch.dtype) -> cases.Case:
    """The same problem in another dtype."""
    leaves = {name: leaf.detach().to(dtype).requires_grad_() for name, leaf in case.leaves.items()}
    return cases.Case(case.layout, case.shift, leaves, case.key_start)


def check(case: cases.Case) -> None:
    """Result and gradients in float64 to rounding, in float32 to twice the reference's error."""
    single = rounded(case, torch.float32)
    exact = rounded(single, torch.float64)
    expected = exact.run_with_gradients("reference")
    for ours, truth in zip(exact.run_with_gradients("triton"), expected, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-10, atol=1e-10)
    ours, theirs = single.run_with_gradients("triton"), single.run_with_gradients("reference")
    least = 0.1 * max(float(truth.detach().norm()) for truth in expected)  # a gradient may be a difference, 0
    for mine, peer, truth in zip(ours, theirs, expected, strict=True):
        size = max(float(truth.detach().norm()), least)
        error, allowed = (float((x.double() - truth).detach().norm()) / size for x in (mine, peer))
        assert error <= 2 * allowed + 8 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("number", range(24))
def test_ragged_sizes(number):
    """Every length with four pairs of memory and cache, every pair with two lengths; the rest in turn."""
    n = LENGTHS[number % 6]
    memory, cache = MEMORIES_AND_CACHES[number % 12 if number < 12 else (number + 5) % 12]
    layout = SegmentLayout(memory, number % 5 != 0, cache, number % 3 == 0)
    shift = ("signed", "transformer_xl")[number % 2 if number < 12 else (number + 1) % 2]
    batch, heads = ((1, 2), (2, 1))[number // 2 % 2]
    check(cases.make(layout, n, batch=batch, heads=heads, shift=shift, padded=number % 4 == 3))


@pytest.mark.parametrize(("d_head", "d_pos"), [(100, 36), (16, 512), (256, 130)])
def test_widths(d_head, d_pos):
    check(cases.make(SegmentLayout(3, cache_len=4), 20, batch=1, heads=1, d_head=d_head, d_pos=d_pos))


@pytest.mark.parametrize(
    ("block_q", "block_k", "store", "shift"),
    [(16, 32, False, "transformer_xl"), (32, 16, True, "transformer_xl"), (16, 16, True, "signed")],
)
def test_tiles_and_stored_queries(block_q, block_k, store, shift, monkeypatch):
    """Memory blocks cut by tiles, tiles before, in and after the plain range, rotated queries read back."""
    for kernel in launch.INTERPRETED:
        if kernel != "attention_backward_weight":
            monkeypatch.setitem(
                launch.INTERPRETED,
                kernel,
                {**launch.INTERPRETED[kernel], "block_q": block_q, "block_k": block_k, "store": store},
            )
    for layout in (SegmentLayout(20, cache_len=33), SegmentLayout(3, True, 19, True)):
        check(cases.make(layout, 45, batch=1, heads=1, shift=shift, padded=layout.read_cache))


def test_without_positions():
    case = cases.make(SegmentLayout(5, cache_len=17), 20)
    case.key_start = torch.tensor([3, 40])
    leaves = [case.leaves[name] for name in ("query", "key", "value")]

    def run(backend):
        out = memory_attention(*leaves, case.layout, key_start=case.key_start, scale=0.3, backend=backend)
        return [out, *torch.autograd.grad(out.square().sum(), leaves)]

    for ours, truth in zip(run("triton"), run("reference"), strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shift", ["signed", "transformer_xl"])
def test_dropout_is_the_reference_with_the_same_mask(shift, monkeypatch):
    layout, dropout_p = SegmentLayout(5, cache_len=17), 0.3
    case = cases.make(layout, 63, shift=shift, padded=True)
    drawn = []
    draw = torch.randint
    monkeypatch.setattr(torch, "randint", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])
    ours = case.run_with_gradients("triton", dropout_p=dropout_p)
    batch, lq, heads, _ = case.leaves["query"].shape
    dropped = dropout.threshold(dropout_p)
    keep = dropout.keep_mask(drawn[0], batch, heads, lq, case.leaves["key"].shape[1], dropped)
    assert abs(float(keep.double().mean()) - 0.7) < 0.01
    scale = 2**16 / (2**16 - dropped)
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda weights, p: weights * keep * scale)
    expected = case.run_with_gradients("reference", dropout_p=dropout_p)
    for mine, truth in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-10, atol=1e-10)


def test_dropout_follows_the_generator():
    case = cases.make(SegmentLayout(2), 20)
    torch.manual_seed(5)
    first, second = case.run("triton", dropout_p=0.5), case.run("triton", dropout_p=0.5)
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(case.run("triton", dropout_p=0.5), first)


def test_inputs_and_saved_tensors_are_left_alone():
    case = cases.make(SegmentLayout(5, cache_len=7), 20, shift="transformer_xl")
    before = {name: leaf.detach().clone() for name, leaf in case.leaves.items()}
    out = case.run("triton")
    kept = out.detach().clone()
    weights = torch.randn_like(out)
    leaves = list(case.leaves.values())
    first = torch.autograd.grad(out, leaves, weights, retain_graph=True)
    second = torch.autograd.grad(out, leaves, weights)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))  # and bit by bit the same
    assert torch.equal(out, kept)
    assert all(torch.equal(case.leaves[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("wanted", [("query",), ("value",), ("weight", "key"), ("position_bias",)])
def test_gradients_of_some_inputs(wanted):
    case = cases.make(SegmentLayout(3, cache_len=4), 9)
    expected = dict(zip(case.leaves, case.run_with_gradients("reference")[1:], strict=True))
    for name, leaf in case.leaves.items():
        leaf.requires_grad_(name in wanted)
    out = case.run("triton")
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    (out * weights).sum().backward()
    for name, leaf in case.leaves.items():
        assert (leaf.grad is not None) == (name in wanted)
        if name in wanted:
            torch.testing.assert_close(leaf.grad, expected[name], rtol=1e-10, atol=1e-10)


def test_strided_inputs_are_not_copied():
    case = cases.make(SegmentLayout(2, cache_len=3), 9)
    expected = case.run_with_gradients("reference")
    views = {}
    for name in ("query", "key", "value"):
        wide = torch.stack([case.leaves[name].detach()] * 2, dim=2).permute(0, 3, 1, 2, 4).contiguous()
        views[name] = wide[:, :, :, 1].transpose(1, 2).requires_grad_()
        assert not views[name].is_contiguous()
        assert operator._rows(views[name]) is views[name]
    case.leaves |= views
    for ours, truth in zip(case.run_with_gradients("triton"), expected, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-10, atol=1e-10)


def test_empty_batch():
    layout = SegmentLayout(2)
    query = torch.zeros(0, 9, 2, 4, requires_grad=True)
    position = RelativePosition(*(torch.ones(s, requires_grad=True) for s in ((2, 4, 6), (2, 4), (2, 4))))
    out = memory_attention(query, query, query, layout, position, backend="triton")
    out.sum().backward()
    assert out.shape == query.shape and not position.weight.grad.any()


def test_visibility_is_the_layouts_rule():
    from tests.rate_kernels.attention.visibility_kernel import bounds

    for memory, write, cache, read_cache, n in itertools.product(
        (0, 1, 5), (0, 1), (0, 7), (0, 1), (0, 1, 9)
    ):
        layout = SegmentLayout(memory, bool(write), cache, bool(read_cache))
        mask = layout.mask(n)
        rows, keys = mask.shape
        found = torch.empty(4, 64, dtype=torch.int32)
        static = launch.Static(read_cache=bool(read_cache))
        bounds[(1,)](found, memory, rows - layout.num_write, cache, rows, keys, static)
        i, j = torch.arange(rows)[:, None], torch.arange(keys)[None, :]
        assert torch.equal((j >= found[0, :rows, None]) & (j < found[1, :rows, None]), mask)
        assert torch.equal((i >= found[2, None, :keys]) & (i < found[3, None, :keys]), mask)


@pytest.mark.parametrize("shift", ["signed", "transformer_xl"])
def test_opcheck(shift):
    layout = SegmentLayout(2, cache_len=3)
    case = cases.make(layout, 5, batch=1, heads=2, shift=shift, dtype=torch.float32)
    inputs = [*case.leaves.values(), torch.tensor([1]), torch.tensor([7])]
    numbers = ([2, 1, 3, 0], shift == "transformer_xl", 0.5, 0.25)
    torch.library.opcheck(torch.ops.rate_kernels.triton_attention, (*inputs, *numbers))
    detached = [x.detach() for x in inputs]
    out, statistics = torch.ops.rate_kernels.triton_attention(*detached, *numbers)
    backward = torch.ops.rate_kernels.triton_attention_backward
    wanted = [True, True, False, True, False, True]
    torch.library.opcheck(backward, (torch.randn_like(out), out, statistics, wanted, *detached, *numbers))
