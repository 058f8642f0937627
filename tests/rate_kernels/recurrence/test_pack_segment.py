"""pack_segment: the interleaving, its gradients, and the native backend against the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rate_kernels import SegmentLayout
from rate_kernels.recurrence import native, pack_segment

CPU = torch.device("cpu")
NATIVE = pytest.param(
    "native", marks=pytest.mark.skipif(native.obstacle(CPU) is not None, reason=str(native.obstacle(CPU)))
)
BACKENDS = ["reference", NATIVE]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def inputs(
    batch: int,
    memory: int,
    steps: int,
    dim: int,
    *,
    last_action: bool = True,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch * 1000 + memory * 100 + steps * 10 + dim)

    def random(rows: int) -> Tensor:
        return torch.randn(batch, rows, dim, generator=generator).to(dtype)

    actions = random(steps if last_action else steps - 1)
    return random(memory) if memory else None, random(steps), random(steps), actions


def token_by_token(memory, returns, observations, actions, layout) -> Tensor:  # type: ignore[no-untyped-def]
    """The definition, one row at a time."""
    rows = [] if memory is None else [memory[:, i] for i in range(layout.num_memory)]
    for step in range(returns.shape[1]):
        rows += [returns[:, step], observations[:, step]]
        if step < actions.shape[1]:
            rows.append(actions[:, step])
    if memory is not None and layout.write_memory:
        rows += [memory[:, i] for i in range(layout.num_memory)]
    return torch.stack(rows, dim=1)


def with_gradients(arguments, layout, backend):  # type: ignore[no-untyped-def]
    leaves = [None if x is None else x.detach().clone().requires_grad_() for x in arguments]
    packed = pack_segment(*leaves, layout, backend=backend)
    weight = torch.linspace(-1, 1, packed.numel()).reshape(packed.shape).to(packed.dtype)
    packed.backward(weight)
    return packed.detach(), [None if x is None else x.grad for x in leaves]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("last_action", [True, False])
@pytest.mark.parametrize("write_memory", [True, False])
@pytest.mark.parametrize(
    ("batch", "memory", "steps", "dim"),
    [(2, 3, 4, 8), (1, 0, 1, 1), (3, 1, 1, 5), (1, 7, 13, 3), (0, 2, 3, 4)],
)
def test_order_of_tokens(backend, last_action, write_memory, batch, memory, steps, dim):
    layout = SegmentLayout(memory, write_memory)
    arguments = inputs(batch, memory, steps, dim, last_action=last_action)
    packed = pack_segment(*arguments, layout, backend=backend)
    assert packed.is_contiguous()
    assert torch.equal(packed, token_by_token(*arguments, layout))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("last_action", [True, False])
@pytest.mark.parametrize("layout", [SegmentLayout(2), SegmentLayout(2, write_memory=False), SegmentLayout(0)])
def test_gradcheck(backend, last_action, layout):
    arguments = inputs(2, layout.num_memory, 3, 2, last_action=last_action, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in arguments if x is not None]

    def run(*tensors: Tensor) -> Tensor:
        memory, rest = (tensors[0], tensors[1:]) if layout.num_memory else (None, tensors)
        return pack_segment(memory, *rest, layout, backend=backend)

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("batch", "memory", "steps", "dim", "last_action"),
    [
        (2, 3, 5, 7, True),
        (3, 1, 1, 33, False),
        (10, 20, 63, 4096, True),
    ],  # the last one is split over threads
)
@pytest.mark.parametrize("backend", [NATIVE])
def test_native_equals_reference(backend, threads, dtype, batch, memory, steps, dim, last_action):
    layout = SegmentLayout(memory)
    arguments = inputs(batch, memory, steps, dim, last_action=last_action, dtype=dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        packed, gradients = with_gradients(arguments, layout, backend)
    finally:
        torch.set_num_threads(before)
    expected, expected_gradients = with_gradients(arguments, layout, "reference")
    assert torch.equal(packed, expected)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_memory_gradient_is_rounded_once(backend, dtype):
    memory = torch.zeros(1, 2, 4, dtype=dtype, requires_grad=True)
    tokens = torch.zeros(1, 1, 4, dtype=dtype)
    gradient = torch.randn(1, 7, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    pack_segment(memory, tokens, tokens, tokens, SegmentLayout(2), backend=backend).backward(gradient)
    assert torch.equal(memory.grad, (gradient[:, :2].float() + gradient[:, 5:].float()).to(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_and_expanded_inputs(backend):
    layout = SegmentLayout(3)
    wide = torch.randn(2, 4, 3, 16, generator=torch.Generator().manual_seed(1))
    memory = torch.randn(1, 3, 8).expand(2, 3, 8)
    returns = wide[:, :, 0, :8]  # rows apart
    observations = wide[:, :, 1, ::2]  # last dimension not contiguous
    actions = wide[:, :, 2, 8:].transpose(0, 1).contiguous().transpose(0, 1)  # batch innermost
    arguments = memory, returns, observations, actions
    assert torch.equal(pack_segment(*arguments, layout, backend=backend), token_by_token(*arguments, layout))


@pytest.mark.parametrize("backend", BACKENDS)
def test_negated_view(backend):
    """A tensor whose memory holds the negated values, as the imaginary part of a conjugate does."""
    x = torch.randn(2, 3, 4, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    packed = pack_segment(None, x, x, x, SegmentLayout(), backend=backend)
    assert torch.equal(packed, x.clone().repeat_interleave(3, dim=1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_expanded_memory_sums_over_the_batch(backend):
    memory = torch.zeros(1, 2, 4, requires_grad=True)
    tokens = torch.zeros(5, 3, 4)
    packed = pack_segment(memory.expand(5, 2, 4), tokens, tokens, tokens, SegmentLayout(2), backend=backend)
    packed.sum().backward()
    assert torch.equal(memory.grad, torch.full((1, 2, 4), 10.0))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("needed", range(4))
def test_only_one_input_needs_a_gradient(backend, needed):
    arguments = inputs(2, 2, 3, 4)
    arguments[needed].requires_grad_()
    packed = pack_segment(*arguments, SegmentLayout(2), backend=backend)
    packed.sum().backward()
    expected = 2.0 if needed == 0 else 1.0
    assert torch.equal(arguments[needed].grad, torch.full_like(arguments[needed], expected))
    assert all(x.grad is None for i, x in enumerate(arguments) if i != needed)


@pytest.mark.parametrize("backend", [NATIVE])
def test_every_element_is_written(backend, monkeypatch):
    allocate = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *args: allocate(*args).fill_(torch.nan))
    assert torch.zeros(1).new_empty(2).isnan().all()
    for last_action in (True, False):
        arguments = inputs(3, 4, 5, 6, last_action=last_action)
        assert not pack_segment(*arguments, SegmentLayout(4), backend=backend).isnan().any()


@pytest.mark.parametrize("backend", [NATIVE])
@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(0, 4),
    memory=st.integers(0, 9),
    steps=st.integers(1, 20),
    dim=st.integers(0, 40),
    last_action=st.booleans(),
    write_memory=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_any_size(backend, batch, memory, steps, dim, last_action, write_memory, dtype):
    layout = SegmentLayout(memory, write_memory)
    arguments = inputs(batch, memory, steps, dim, last_action=last_action, dtype=dtype)
    packed, gradients = with_gradients(arguments, layout, backend)
    expected, expected_gradients = with_gradients(arguments, layout, "reference")
    assert torch.equal(packed, expected)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert gradient is expected_gradient or torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeated_backward(backend):
    arguments = inputs(2, 2, 3, 4)
    memory = arguments[0].requires_grad_()
    packed = pack_segment(*arguments, SegmentLayout(2), backend=backend).square()
    packed.sum().backward(retain_graph=True)
    first = memory.grad.clone()
    memory.grad = None
    packed.sum().backward()
    assert torch.equal(memory.grad, first)


def wrong(**changes):  # type: ignore[no-untyped-def]
    names = ("memory", "returns", "observations", "actions")
    return {**dict(zip(names, inputs(2, 3, 4, 8), strict=True)), "layout": SegmentLayout(3), **changes}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"returns": torch.zeros(4, 8)}, ValueError, r"returns must be \[B, K, d\].*got \[4, 8\]"),
        ({"returns": torch.zeros(2, 0, 8)}, ValueError, r"returns must be .* K at least 1, got \[2, 0, 8\]"),
        (
            {"observations": torch.zeros(2, 3, 8)},
            ValueError,
            r"observations must be \[2, 4, 8\], got \[2, 3, 8\]",
        ),
        (
            {"actions": torch.zeros(2, 2, 8)},
            ValueError,
            r"actions must be \[2, 4, 8\] or one step shorter, got",
        ),
        ({"memory": None}, ValueError, r"memory must be \[2, 3, 8\] .* got None"),
        ({"memory": torch.zeros(2, 4, 8)}, ValueError, r"memory must be \[2, 3, 8\] .* got \[2, 4, 8\]"),
        (
            {"memory": torch.zeros(2, 3, 8).double()},
            TypeError,
            r"memory must have .*float32, got torch.float64",
        ),
        (
            {"actions": torch.zeros(2, 4, 8).half()},
            TypeError,
            r"actions must have .*float32, got torch.float16",
        ),
        (
            {"observations": torch.zeros(2, 4, 8, device="meta")},
            TypeError,
            r"observations must be on .*cpu, got meta",
        ),
        ({"returns": torch.zeros(2, 4, 8).int()}, TypeError, r"returns must be float32.*got torch.int32"),
        ({"backend": "triton"}, ValueError, r"backend of pack_segment must be one of native, reference"),
    ],
)
def test_errors_name_the_argument(changes, error, message):
    with pytest.raises(error, match=message) as raised:
        pack_segment(**wrong(**changes))
    assert "\n" not in str(raised.value)
