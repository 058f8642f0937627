"""The registered operators: opcheck, fake tensors, and torch.compile over both backends."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rate_kernels import SegmentLayout
from rate_kernels.recurrence import native, pack_segment, roll_cache

CPU = torch.device("cpu")
needs_native = pytest.mark.skipif(native.obstacle(CPU) is not None, reason=str(native.obstacle(CPU)))
BACKENDS = ["reference", pytest.param("native", marks=needs_native)]


@needs_native
@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck_pack_segment(memory, missing, requires_grad):
    embeddings = [torch.randn(2, rows, 4, requires_grad=requires_grad) for rows in (3, 3, 3 - missing)]
    tokens = torch.randn(2, 2, 4, requires_grad=requires_grad) if memory else None
    arguments = (tokens, *embeddings, 2 * memory, 2 * memory)
    torch.library.opcheck(torch.ops.rate_kernels.pack_segment.default, arguments)


@needs_native
@pytest.mark.parametrize("cache_len", [0, 4, 100])
def test_opcheck_roll_cache(cache_len):
    cache, hidden = [torch.randn(2, c, 4) for c in (0, 6)], [torch.randn(2, 5, 4) for _ in range(2)]
    torch.library.opcheck(torch.ops.rate_kernels.roll_cache.default, (cache, hidden, cache_len))


@needs_native
def test_fake_tensors():
    with FakeTensorMode():
        tokens = torch.empty(2, 3, 4)
        assert pack_segment(None, tokens, tokens, tokens, SegmentLayout(), backend="native").shape == (
            2,
            9,
            4,
        )
        assert roll_cache([tokens], [tokens], 5, backend="native")[0].shape == (2, 5, 4)


def embed_and_pack(memory, tokens, layout, backend):  # type: ignore[no-untyped-def]
    """Work before and after, so that the compiler has something to fuse and layouts to choose."""
    packed = pack_segment(memory * 2, tokens.sin(), tokens.cos(), tokens[:, :-1] + 1, layout, backend=backend)
    return packed.square(), roll_cache([tokens], [packed], 5, backend=backend)[0]


@pytest.mark.slow
@pytest.mark.parametrize("backend", [*BACKENDS, None])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_whole_forward_and_backward(backend, dynamic):
    torch._dynamo.reset()
    layout = SegmentLayout(2)
    compiled = torch.compile(embed_and_pack, fullgraph=True, dynamic=dynamic)
    for batch in (3, 5) if dynamic else (3,):
        results = []
        for function in (embed_and_pack, compiled):
            generator = torch.Generator().manual_seed(batch)
            memory = torch.randn(batch, 2, 8, generator=generator).requires_grad_()
            tokens = torch.randn(batch, 6, 8, generator=generator).requires_grad_()
            packed, rolled = function(memory, tokens, layout, backend)
            assert not rolled.requires_grad
            packed.sum().backward()
            results.append((packed.detach(), rolled, memory.grad, tokens.grad))
        for eager, other in zip(*results, strict=True):
            torch.testing.assert_close(other, eager)


@needs_native
@pytest.mark.slow
def test_compiled_choice_equals_the_eager_one():
    """backend=None takes the native operator in a compiled graph as it does in eager mode."""
    torch._dynamo.reset()
    graphs = []

    def keep(graph, _):  # type: ignore[no-untyped-def]
        graphs.append(graph)
        return graph.forward

    tokens = torch.randn(2, 3, 4)
    compiled = torch.compile(
        lambda x: pack_segment(None, x, x, x, SegmentLayout()), fullgraph=True, backend=keep
    )
    assert torch.equal(compiled(tokens), tokens.repeat_interleave(3, dim=1))
    (graph,) = graphs
    assert any("rate_kernels.pack_segment" in str(node.target) for node in graph.graph.nodes)


@needs_native
@pytest.mark.slow
def test_first_call_of_a_process_may_be_a_compiled_one():
    code = """
    import sys, torch
    from rate_kernels import SegmentLayout
    from rate_kernels.recurrence import pack_segment, roll_cache
    assert "rate_kernels._native" not in sys.modules
    def f(x):
        return pack_segment(None, x, x, x, SegmentLayout()), roll_cache([x], [x], 4)[0]
    x = torch.randn(2, 3, 4)
    packed, rolled = torch.compile(f, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(packed, x.repeat_interleave(3, dim=1))
    assert torch.equal(rolled, torch.cat((x, x), 1)[:, 2:])
    assert "rate_kernels._native" in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
