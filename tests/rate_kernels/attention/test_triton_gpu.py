"""The attention kernels on a device: errors against float64, repeats, graphs, compilation, launches."""

import pytest
import torch

from rate_kernels import SegmentLayout, memory_attention
from rate_kernels.attention.triton import dropout, launch
from tests import golden
from tests.rate_kernels.attention import cases

pytestmark = pytest.mark.gpu

LAYOUTS = [
    SegmentLayout(0),
    SegmentLayout(15),
    SegmentLayout(15, cache_len=360),
    SegmentLayout(5, False, 17, True),
    SegmentLayout(1, cache_len=17),
]


def make(layout, n, dtype, *, heads=2, d_head=64, d_pos=64, batch=3, **options):
    case = cases.make(layout, n, batch=batch, heads=heads, d_head=d_head, d_pos=d_pos, **options)
    return to(case, dtype)


def to(case, dtype):
    leaves = {name: leaf.detach().to("cuda", dtype).requires_grad_() for name, leaf in case.leaves.items()}
    key_start = None if case.key_start is None else case.key_start.cuda()
    return cases.Case(case.layout, case.shift, leaves, key_start)


def assert_within_budget(case, dtype):
    """Error against float64 at most twice that of the reference in the same dtype."""
    ours, theirs = (case.run_with_gradients(backend) for backend in ("triton", "reference"))
    exact = to(case, torch.float64).run_with_gradients("reference")
    for name, mine, peer, truth in zip(("out", *case.leaves), ours, theirs, exact, strict=True):
        assert mine.isfinite().all(), name
        budget = 2 * golden.error(peer, truth) + 2 * torch.finfo(dtype).eps
        assert golden.error(mine, truth) <= budget, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shift", ["signed", "transformer_xl"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_error(layout, shift, dtype):
    for n in (1, 63, 150, 257):
        assert_within_budget(make(layout, n, dtype, shift=shift, padded=n == 150), dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("d_head", "d_pos"), [(16, 16), (32, 64), (100, 36), (128, 128), (64, 512), (256, 512)]
)
def test_widths(d_head, d_pos, dtype):
    case = make(
        SegmentLayout(15, cache_len=30), 90, dtype, d_head=d_head, d_pos=d_pos, shift="transformer_xl"
    )
    assert_within_budget(case, dtype)


def test_tf32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert_within_budget(make(SegmentLayout(15), 150, torch.float32), torch.bfloat16)
    finally:
        torch.set_float32_matmul_precision(before)


def test_long_sequence():
    assert_within_budget(make(SegmentLayout(15), 4000, torch.bfloat16, batch=1, heads=1), torch.bfloat16)


def test_repeats_bit_by_bit():
    case = make(
        SegmentLayout(15, cache_len=360), 257, torch.bfloat16, batch=8, heads=8, shift="transformer_xl"
    )
    first = case.run_with_gradients("triton")
    for _ in range(20):
        for one, other in zip(case.run_with_gradients("triton"), first, strict=True):
            assert torch.equal(one, other)


def test_dropout_mask_is_the_one_of_the_reference(monkeypatch):
    case = make(SegmentLayout(5, cache_len=17), 150, torch.float32)
    drawn, draw = [], torch.randint
    monkeypatch.setattr(torch, "randint", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])
    ours = case.run_with_gradients("triton", dropout_p=0.3)
    batch, lq, heads, _ = case.leaves["query"].shape
    dropped = dropout.threshold(0.3)
    keep = dropout.keep_mask(drawn[0], batch, heads, lq, case.leaves["key"].shape[1], dropped)
    scale = 2**16 / (2**16 - dropped)
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda weights, p: weights * keep * scale)
    for mine, truth in zip(ours, case.run_with_gradients("reference", dropout_p=0.3), strict=True):
        assert golden.error(mine, truth) < 1e-4


def test_strides_beyond_32_bits():
    """A batch whose entries lie 2^31 elements apart."""
    layout, apart = SegmentLayout(2), 2**31 + 64
    storage = torch.zeros(apart + 64 * 40, dtype=torch.bfloat16, device="cuda")
    far = storage.as_strided((2, 24, 1, 64), (apart, 64, 64, 1)).normal_()
    out = memory_attention(far, far, far, layout, backend="triton")
    dense = far.contiguous()
    assert torch.equal(out, memory_attention(dense, dense, dense, layout, backend="triton"))


def test_lengths_share_one_compiled_kernel():
    kernel = launch.kernels()["attention_forward"]

    def versions():
        return sum(len(cache[0]) for cache in kernel.device_caches.values())

    counts = []
    for n in (150, 151, 177, 201, 333, 500, 1000):
        make(SegmentLayout(15, cache_len=n // 3), n, torch.bfloat16).run("triton")
        counts.append(versions())
    assert counts[-1] == counts[0]


def test_compiles_whole():
    case = make(SegmentLayout(15, cache_len=17), 150, torch.bfloat16, shift="transformer_xl")
    forward = torch.compile(lambda: case.run("triton"), fullgraph=True)
    torch.testing.assert_close(forward(), case.run("triton"))
    leaves, weights = list(case.leaves.values()), torch.randn_like(case.run("triton"))
    ours = torch.autograd.grad((forward() * weights).sum(), leaves)
    eager = torch.autograd.grad((case.run("triton") * weights).sum(), leaves)
    for a, b in zip(ours, eager, strict=True):
        assert golden.error(a, b) < 1e-2


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
def test_cuda_graph(dropout_p):
    case = make(SegmentLayout(15), 150, torch.bfloat16)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            case.run_with_gradients("triton", dropout_p=dropout_p)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = case.run_with_gradients("triton", dropout_p=dropout_p)
    graph.replay()
    first = [x.clone() for x in captured]
    with torch.no_grad():
        for leaf in case.leaves.values():
            leaf.mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    assert not torch.equal(captured[0], first[0])
    if dropout_p == 0:
        for mine, eager in zip(captured, case.run_with_gradients("triton"), strict=True):
            assert torch.equal(mine, eager)
    else:  # every replay draws a new mask
        again = captured[0].clone()
        graph.replay()
        assert not torch.equal(captured[0], again)
