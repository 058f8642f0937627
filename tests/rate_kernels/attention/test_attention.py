"""Memory-token attention: equations, backends, gradients, dropout, padding, compilation, errors."""

import itertools

import pytest
import torch

from rate_kernels import BackendUnavailable, RelativePosition, SegmentLayout, memory_attention, triton_support
from rate_kernels.attention import sdpa
from rate_kernels.attention.blocked import blocked_attention, blocked_attention_backward
from tests import golden
from tests.rate_kernels.attention import cases

BACKENDS = ["triton"] if triton_support.interpreted() else ["reference", "sdpa"]
GOLDEN = ["cache_read", "memory_and_cache", "memory_front_only", "memory_tokens", "no_memory"]
LAYOUTS = [
    SegmentLayout(*fields) for fields in itertools.product((0, 1, 5), (True, False), (0, 17), (False, True))
]


@pytest.mark.interpreter
@pytest.mark.parametrize("backend", BACKENDS if triton_support.interpreted() else ["native", *BACKENDS])
@pytest.mark.parametrize("name", GOLDEN)
def test_published_layer(name, backend):
    """Forward and every gradient of the published layer, projections included."""
    meta, arrays = golden.load(f"attn_{name}")
    heads, d_head = meta["n_head"], meta["d_head"]
    names = ("w", "qkv_weight", "r_weight", "o_weight", "u", "v")
    w, qkv_weight, r_weight, o_weight, u, v = (arrays[n].requires_grad_() for n in names)
    seen = torch.cat([arrays["cache"], w]) if "cache" in arrays else w
    query, key, value = (seen @ qkv_weight.T).unflatten(-1, (3, heads, d_head)).transpose(0, 1).unbind(2)
    position = RelativePosition(r_weight.unflatten(0, (heads, d_head)), u, v, "transformer_xl")
    out = memory_attention(
        query[:, query.shape[1] - w.shape[0] :], key, value, golden.layout(meta), position, backend=backend
    )
    projected = (out.flatten(2) @ o_weight.T).transpose(0, 1)
    assert golden.error(projected, arrays["out"]) < 1e-5
    gradients = torch.autograd.grad(
        (projected * arrays["grad_out"]).sum(), [w, qkv_weight, r_weight, o_weight, u, v]
    )
    for gradient_name, gradient in zip(names, gradients, strict=True):
        assert golden.error(gradient, arrays[f"d_{gradient_name}"]) < 1e-5, gradient_name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("n", [1, 2, 13])
def test_separable_form_is_shift_and_add(layout, n, backend):
    case = cases.make(layout, n, shift="transformer_xl")
    assert (case.run(backend) - cases.shift_and_add(case)).abs().max() < 1e-12


@pytest.mark.interpreter
@pytest.mark.parametrize("backend", BACKENDS)
def test_signed_is_shift_and_add_where_nothing_is_ahead(backend):
    case = cases.make(SegmentLayout(0, cache_len=5), 13, shift="signed")
    assert (case.run(backend) - cases.shift_and_add(case)).abs().max() < 1e-12


def test_shifts_differ_only_in_memory_rows():
    layout = SegmentLayout(5, cache_len=3)
    signed, published = (cases.make(layout, 9, shift=s).run("sdpa") for s in ("signed", "transformer_xl"))
    differs = (signed - published).abs().amax((0, 2, 3)) > 1e-9
    # All but the last memory token of each block see a key ahead.
    assert differs.nonzero().flatten().tolist() == [0, 1, 2, 3, 14, 15, 16, 17]


@pytest.mark.parametrize("run", ["blocked", "fused"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shift", ["signed", "transformer_xl"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_backends_agree(layout, shift, padded, run, monkeypatch):
    """Both forms of the sdpa backend, the one for CPUs and the one for accelerators, at ragged sizes."""
    if run == "fused":
        monkeypatch.setattr(sdpa, "_blocked", sdpa._fused)
    for n in (1, 63, 111):
        case = cases.make(layout, n, shift=shift, padded=padded)
        for ours, reference in zip(
            case.run_with_gradients("sdpa"), case.run_with_gradients("reference"), strict=True
        ):
            torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_is_that_of_the_dtype(dtype):
    """Against float64, at most twice the reference's error in the same dtype."""
    layout = SegmentLayout(15, cache_len=17)
    exact = cases.make(layout, 180, d_head=32, d_pos=64)
    case = cases.make(layout, 180, d_head=32, d_pos=64, dtype=dtype)
    for name, leaf in exact.leaves.items():
        leaf.data.copy_(case.leaves[name].double())  # the same, already rounded, numbers
    oracle = exact.run_with_gradients("reference")
    ours, reference = case.run_with_gradients("sdpa"), case.run_with_gradients("reference")
    for mine, theirs, truth in zip(ours, reference, oracle, strict=True):
        assert golden.error(mine, truth) <= 2 * golden.error(theirs, truth) + torch.finfo(dtype).eps


@pytest.mark.interpreter
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shift", ["signed", "transformer_xl"])
@pytest.mark.parametrize(
    "layout", [SegmentLayout(0), SegmentLayout(2, cache_len=3), SegmentLayout(3, False, 2, True)], ids=str
)
def test_gradcheck(layout, shift, backend):
    case = cases.make(layout, 5, batch=2, heads=2, d_head=3, d_pos=4, shift=shift, padded=True)

    def run(*leaves):
        return cases.Case(layout, shift, dict(zip(case.leaves, leaves, strict=True)), case.key_start).run(
            backend
        )

    # The interpreter is too slow for one difference per input: along random directions.
    assert torch.autograd.gradcheck(run, tuple(case.leaves.values()), fast_mode=triton_support.interpreted())


@pytest.mark.interpreter
@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_see_nothing_give_zero(backend):
    case = cases.make(SegmentLayout(0), 4)
    case.key_start = torch.tensor([0, 3])
    out, *gradients = case.run_with_gradients(backend)
    assert (out[1, :3] == 0).all() and (out[1, 3] != 0).any() and (out[0] != 0).all()
    assert (gradients[0][1, :3] == 0).all()
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.interpreter
@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_is_as_good_as_absence(backend):
    """A left-padded segment gives what the shorter one gives: only distances matter."""
    layout = SegmentLayout(3)
    long = cases.make(layout, 10, batch=1)
    long.key_start = torch.tensor([4])
    rows = [0, 1, 2, *range(7, 16)]
    out = long.run(backend)[:, rows]
    # Without positions between the read memory and the segment the two are the same problem.
    short = cases.Case(layout, "signed", dict(long.leaves))
    for name in ("query", "key", "value"):
        short.leaves[name] = long.leaves[name][:, rows]
    for case in (long, short):
        case.leaves["weight"] = torch.zeros_like(case.leaves["weight"])
    torch.testing.assert_close(long.run(backend)[:, rows], short.run(backend), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(out, short.run(backend))  # and the positions do matter


@pytest.mark.interpreter
@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_keeps_the_mean_and_drops_the_share(backend):
    layout = SegmentLayout(0)
    query = key = torch.zeros(64, 16, 2, 4)
    value = torch.eye(16)[None, :, None, :].expand(64, 16, 2, 16)
    query, key = (torch.zeros(64, 16, 2, 16) for _ in range(2))
    torch.manual_seed(0)
    out = memory_attention(query, key, value, layout, dropout_p=0.25, backend=backend)
    last = out[:, -1]  # the 16 attention weights themselves, each 1/16 or dropped
    dropped = (last == 0).float().mean()
    assert abs(float(dropped) - 0.25) < 0.03
    assert torch.allclose(last[last != 0], torch.tensor(1 / 16 / 0.75))
    torch.manual_seed(0)
    assert torch.equal(out, memory_attention(query, key, value, layout, dropout_p=0.25, backend=backend))


def test_dropout_gradient_meets_the_same_mask():
    case = cases.make(SegmentLayout(2), 6)

    def run():
        torch.manual_seed(3)
        return case.run("sdpa", dropout_p=0.5)

    value = case.leaves["value"]
    (gradient,) = torch.autograd.grad(run().sum(), value)
    before = run().sum()
    with torch.no_grad():
        value[0, 3, 1, 2] += 1.0  # the result is linear in the value, so the difference is the gradient
    assert abs(float(run().sum() - before - gradient[0, 3, 1, 2])) < 1e-10


def test_strided_inputs():
    layout = SegmentLayout(2, cache_len=3)
    case = cases.make(layout, 9)
    expected = case.run("sdpa")
    for name in ("query", "key", "value"):
        wide = torch.stack([case.leaves[name]] * 2, dim=2).permute(0, 3, 1, 2, 4)
        case.leaves[name] = wide[:, :, :, 1].transpose(1, 2)
        assert not case.leaves[name].is_contiguous()
    torch.testing.assert_close(case.run("sdpa"), expected)


def test_opcheck():
    layout, n = SegmentLayout(2, cache_len=3), 5
    lq, lk, groups = layout.query_length(n), layout.key_length(n), 6
    shapes = ((groups, lq, 4), (groups, lq, 6), (groups, lk, 4), (groups, lk, 4))
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    table = torch.randn(lk, 6, dtype=torch.float64)
    correction = torch.randn(2, groups, 2, 2, dtype=torch.float64, requires_grad=True)
    keep = torch.ones(groups, lq, lk, dtype=torch.float64)
    numbers = [2, 1, 3, 0]
    torch.library.opcheck(blocked_attention, (*inputs, table, correction, keep, None, numbers, 0.5, True))
    _, weights = blocked_attention(*inputs, table, correction, keep, None, numbers, 0.5, True)
    gradient = torch.randn(groups, lq, 4, dtype=torch.float64)
    saved = [x.detach() for x in inputs]
    torch.library.opcheck(
        blocked_attention_backward,
        (gradient, *saved, table, keep, [w.detach() for w in weights], numbers, 0.5, True),
    )


@pytest.mark.interpreter
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_whole(backend):
    case = cases.make(SegmentLayout(3, cache_len=4), 9, shift="transformer_xl", dtype=torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(lambda: case.run_with_gradients(backend)[0], fullgraph=False)
    forward = torch.compile(lambda: case.run(backend), fullgraph=True)
    torch.testing.assert_close(forward(), case.run(backend))
    torch.testing.assert_close(compiled(), case.run(backend))
    weights = torch.randn_like(case.run(backend))
    leaves = list(case.leaves.values())
    ours = torch.autograd.grad((forward() * weights).sum(), leaves)
    eager = torch.autograd.grad((case.run(backend) * weights).sum(), leaves)
    for a, b in zip(ours, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def _arguments(**changes):
    layout = changes.pop("layout", SegmentLayout(2, cache_len=3))
    case = cases.make(layout, 5, dtype=torch.float32)
    position = RelativePosition(*(case.leaves[n] for n in ("weight", "content_bias", "position_bias")))
    arguments = {n: case.leaves[n] for n in ("query", "key", "value")} | {
        "layout": layout,
        "position": position,
    }
    return arguments | changes


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"query": torch.zeros(2, 9, 12)},
            ValueError,
            r"query must be \[B, Lq, H, d_head\], got \[2, 9, 12\]",
        ),
        (
            {"key": torch.zeros(2, 9, 3, 4)},
            ValueError,
            r"key must be \[2, 12, 3, 4\] \(cache_len 3 \+ 9 query rows\), got \[2, 9, 3, 4\]",
        ),
        ({"value": torch.zeros(2, 12, 3, 5)}, ValueError, r"value must be .*, got \[2, 12, 3, 5\]"),
        ({"key": torch.zeros(2, 12, 3, 4).double()}, TypeError, "key must have query's dtype torch.float32"),
        (
            {"value": torch.zeros(2, 12, 3, 4, device="meta")},
            TypeError,
            "value must be on query's device cpu, got meta",
        ),
        (
            {"query": torch.zeros(2, 9, 3, 4, dtype=torch.int64)},
            TypeError,
            "query must be float32, .*got torch.int64",
        ),
        ({"dropout_p": 1.0}, ValueError, r"dropout_p must be in \[0, 1\), got 1.0"),
        ({"key_start": torch.zeros(3, dtype=torch.int64)}, ValueError, r"key_start must be \[2\], got \[3\]"),
        ({"key_start": torch.zeros(2)}, TypeError, "key_start must be int64 or int32, got torch.float32"),
        ({"backend": "cuda"}, ValueError, "backend of memory_attention must be one of .*, got 'cuda'"),
    ],
)
def test_bad_arguments_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        memory_attention(**_arguments(**changes))


def test_bad_positions_are_named():
    with pytest.raises(ValueError, match="shift must be one of signed, transformer_xl, got 'left'"):
        RelativePosition(torch.zeros(2, 4, 6), torch.zeros(2, 4), torch.zeros(2, 4), "left")
    with pytest.raises(
        ValueError, match=r"weight must be \[H, d_head, d_pos\] with d_pos even, got \[2, 4, 5\]"
    ):
        RelativePosition(torch.zeros(2, 4, 5), torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"position_bias must be \[2, 4\], got \[4\]"):
        RelativePosition(torch.zeros(2, 4, 6), torch.zeros(2, 4), torch.zeros(4))


def test_environment_names_the_backend(monkeypatch):
    monkeypatch.setenv("RATE_BACKEND", "fast")
    with pytest.raises(ValueError, match=r"RATE_BACKEND must be one of reference, .*, got 'fast'"):
        memory_attention(**_arguments())
    monkeypatch.setenv("RATE_BACKEND", "reference")
    called = []
    monkeypatch.setattr("rate_kernels.attention.sdpa.memory_attention", lambda *a: called.append(a))
    memory_attention(**_arguments())
    assert not called


def test_a_named_backend_that_cannot_run_says_why(monkeypatch):
    monkeypatch.setattr(
        "rate_kernels.attention.api.obstacles", lambda device: {"sdpa": "no such thing; install it"}
    )
    with pytest.raises(
        BackendUnavailable, match="memory_attention cannot run on backend 'sdpa': no such thing"
    ):
        memory_attention(**_arguments(), backend="sdpa")
    with pytest.raises(
        BackendUnavailable, match="memory_attention has no backend that can run: sdpa: no such thing"
    ):
        memory_attention(**_arguments())
