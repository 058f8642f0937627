"""Packing and cache roll on a CUDA device: against the reference, in CUDA graphs, on streams, compiled."""

from __future__ import annotations

import pytest
import torch

from rate_kernels import SegmentLayout
from rate_kernels.recurrence import native, pack_segment, roll_cache

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CASES = [(2, 3, 5, 7), (3, 1, 1, 33), (64, 15, 60, 64), (5, 20, 63, 4096), (70000, 1, 1, 8), (0, 2, 3, 4)]


@pytest.fixture(autouse=True)
def _native_runs():
    # On a device the native backend is required: a reason it cannot run is a failure, not a skip.
    assert native.obstacle(torch.device("cuda")) is None


def random(*shape, dtype=torch.float32):
    return torch.randn(*shape, device="cuda").to(dtype)


def inputs(batch, memory, steps, dim, last_action, dtype):
    torch.manual_seed(0)
    rows = (steps, steps, steps - (not last_action))
    return random(batch, memory, dim, dtype=dtype) if memory else None, *(
        random(batch, n, dim, dtype=dtype) for n in rows
    )


def with_gradients(arguments, layout, backend):
    leaves = [None if x is None else x.detach().clone().requires_grad_() for x in arguments]
    packed = pack_segment(*leaves, layout, backend=backend)
    weight = torch.linspace(-1, 1, packed.numel(), device="cuda").reshape(packed.shape).to(packed.dtype)
    packed.backward(weight)
    return packed.detach(), [x.grad for x in leaves if x is not None]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("last_action", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_packing_and_its_gradient_equal_the_reference(case, last_action, dtype):
    for layout in (SegmentLayout(case[1]), SegmentLayout(case[1], write_memory=False)):
        arguments = inputs(*case, last_action, dtype)
        packed, gradients = with_gradients(arguments, layout, "native")
        expected, expected_gradients = with_gradients(arguments, layout, "reference")
        assert torch.equal(packed, expected)
        for ours, theirs in zip(gradients, expected_gradients, strict=True):
            assert torch.equal(ours, theirs)


def test_second_derivatives():
    leaves = [random(2, n, 3, dtype=torch.float64).requires_grad_() for n in (2, 3, 3, 3)]

    def run(*tensors):
        return pack_segment(*tensors, SegmentLayout(2), backend="native")

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cache_len", [0, 1, 5, 11, 200])
@pytest.mark.parametrize("dim", [5, 64])
def test_roll_equals_the_reference(cache_len, dim, dtype):
    torch.manual_seed(0)
    cache = [
        random(3, rows, dim, dtype=dtype) for rows in (0, 6, 150)
    ] * 15  # more layers than one launch takes
    hidden = [random(3, 90, dim, dtype=dtype) for _ in cache]
    rolled = roll_cache(cache, hidden, cache_len, backend="native")
    for out, kept in zip(rolled, roll_cache(cache, hidden, cache_len, backend="reference"), strict=True):
        assert torch.equal(out, kept)


def test_strided_and_unaligned_inputs():
    torch.manual_seed(0)
    wide, expanded = random(4, 9, 72), random(1, 9, 64).expand(4, 9, 64)
    for first in (0, 1, 2, 4):
        view = wide[:, :, first : first + 64]
        packed = [
            pack_segment(view, expanded, view, view, SegmentLayout(9), backend=b)
            for b in ("native", "reference")
        ]
        assert torch.equal(*packed)
        rolled = [roll_cache([view], [expanded], 12, backend=b)[0] for b in ("native", "reference")]
        assert torch.equal(*rolled)


def test_in_a_cuda_graph():
    layout, arguments = SegmentLayout(3), inputs(2, 3, 5, 16, True, torch.float32)
    cache = [random(2, 4, 16)]

    def run():
        packed = pack_segment(*arguments, layout, backend="native")
        return packed, roll_cache(cache, [packed], 7, backend="native")[0]

    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        packed, rolled = run()
    for seed in range(3):
        torch.manual_seed(seed)
        for tensor in (*arguments, *cache):
            tensor.copy_(torch.randn_like(tensor))
        graph.replay()
        assert torch.equal(packed, pack_segment(*arguments, layout, backend="reference"))
        assert torch.equal(rolled, roll_cache(cache, [packed], 7, backend="reference")[0])


def test_runs_on_the_current_stream():
    """The launch stands behind long work of the same stream, whose result it packs."""
    stream, tokens = torch.cuda.Stream(), torch.zeros(8, 20, 256, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        tokens += 1
        packed = pack_segment(None, tokens, tokens, tokens, SegmentLayout(), backend="native")
    stream.synchronize()
    assert bool((packed == 1).all())


def test_compiled():
    arguments = inputs(2, 3, 5, 16, True, torch.float32)

    @torch.compile(fullgraph=True)
    def run(memory, returns, observations, actions):
        return (
            pack_segment(memory * 2, returns, observations + 1, actions, SegmentLayout(3), backend="native")
            * 3
        )

    leaves = [x.clone().requires_grad_() for x in arguments]
    out = run(*leaves)
    out.sum().backward()
    memory, returns, observations, actions = arguments
    expected = (
        pack_segment(memory * 2, returns, observations + 1, actions, SegmentLayout(3), backend="reference")
        * 3
    )
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(leaves[0].grad, torch.full_like(memory, 12.0))
    torch.testing.assert_close(leaves[3].grad, torch.full_like(actions, 3.0))


def test_devices_must_agree():
    tokens = torch.zeros(1, 2, 4, device="cuda")
    with pytest.raises(TypeError, match="actions must be on the device of returns"):
        pack_segment(None, tokens, tokens, tokens.cpu(), SegmentLayout())
