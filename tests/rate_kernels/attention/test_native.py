"""The native attention kernel: errors at ragged sizes, repeatability, strides, compilation, what it does not take."""

import itertools

import pytest
import torch

from rate_kernels import BackendUnavailable, RelativePosition, SegmentLayout, memory_attention
from rate_kernels.attention import api, native
from rate_kernels.recurrence import native as extension
from tests import golden
from tests.rate_kernels.attention import cases

pytestmark = pytest.mark.skipif(
    native.obstacle(torch.device("cpu")) is not None, reason=str(native.obstacle(torch.device("cpu")))
)

FLOAT32 = torch.finfo(torch.float32).eps
LAYOUTS = [
    SegmentLayout(*fields)
    for fields in itertools.product((0, 1, 5, 15), (True, False), (0, 17), (False, True))
]
GOLDEN = ["cache_read", "memory_and_cache", "memory_front_only", "memory_tokens", "no_memory"]


def _check(layout, n, **options):
    """Against float64, at most twice the reference's error in float32, plus what rounding does to a few numbers."""
    exact, case = cases.make(layout, n, **options), cases.make(layout, n, dtype=torch.float32, **options)
    for name, leaf in exact.leaves.items():
        leaf.data.copy_(case.leaves[name].double())  # the same, already rounded, numbers
    oracle = exact.run_with_gradients("reference")
    ours, reference = case.run_with_gradients("native"), case.run_with_gradients("reference")
    slack = FLOAT32 * (4 if n > 2 else 16)
    for name, mine, theirs, truth in zip(("out", *case.leaves), ours, reference, oracle, strict=True):
        error, allowed = golden.error(mine, truth), 2 * golden.error(theirs, truth) + slack
        assert error <= allowed, f"{name}: {error} > {allowed}"


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shift", ["signed", "transformer_xl"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_error_at_ragged_sizes(layout, shift, padded):
    for n in (1, 2, 15, 63, 111, 150):
        _check(layout, n, d_head=32, d_pos=64, shift=shift, padded=padded)


@pytest.mark.parametrize("d_head", [8, 16, 32, 40, 64, 128, 256, 13])
def test_error_at_head_sizes(d_head):
    for layout, n in itertools.product(
        (SegmentLayout(5, cache_len=17), SegmentLayout(60, True, 3, True)), (15, 63)
    ):
        for shift in ("signed", "transformer_xl"):
            _check(layout, n, d_head=d_head, d_pos=2 * d_head, shift=shift)


@pytest.mark.parametrize("d_pos", [2, 30, 512])
def test_error_at_position_sizes(d_pos):
    _check(SegmentLayout(5, cache_len=17), 63, d_head=16, d_pos=d_pos)


def test_more_entries_and_heads_than_tasks():
    _check(SegmentLayout(3), 20, batch=21, heads=9, d_head=8, d_pos=16)


@pytest.mark.parametrize("name", GOLDEN)
def test_published_layer(name):
    """Forward and every gradient of the published layer, projections included."""
    meta, arrays = golden.load(f"attn_{name}")
    arrays = {key: array.float() for key, array in arrays.items()}
    heads, d_head = meta["n_head"], meta["d_head"]
    names = ("w", "qkv_weight", "r_weight", "o_weight", "u", "v")
    w, qkv_weight, r_weight, o_weight, u, v = (arrays[n].requires_grad_() for n in names)
    seen = torch.cat([arrays["cache"], w]) if "cache" in arrays else w
    query, key, value = (seen @ qkv_weight.T).unflatten(-1, (3, heads, d_head)).transpose(0, 1).unbind(2)
    position = RelativePosition(r_weight.unflatten(0, (heads, d_head)), u, v, "transformer_xl")
    query = query[:, query.shape[1] - w.shape[0] :]
    out = memory_attention(query, key, value, golden.layout(meta), position, backend="native")
    projected = (out.flatten(2) @ o_weight.T).transpose(0, 1)
    assert golden.error(projected, arrays["out"]) < 1e-5
    gradients = torch.autograd.grad(
        (projected * arrays["grad_out"]).sum(), [w, qkv_weight, r_weight, o_weight, u, v]
    )
    for gradient_name, gradient in zip(names, gradients, strict=True):
        assert golden.error(gradient, arrays[f"d_{gradient_name}"]) < 1e-5, gradient_name


def test_without_positions():
    layout = SegmentLayout(5, cache_len=4)
    case = cases.make(layout, 30, d_head=16, dtype=torch.float32)
    leaves = [case.leaves[name] for name in ("query", "key", "value")]
    results = []
    for backend in ("native", "reference"):
        out = memory_attention(*leaves, layout, backend=backend)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


def test_rows_that_see_nothing_give_zero():
    case = cases.make(SegmentLayout(0), 4, dtype=torch.float32)
    case.key_start = torch.tensor([0, 3])
    out, *gradients = case.run_with_gradients("native")
    assert (out[1, :3] == 0).all() and (out[1, 3] != 0).any() and (out[0] != 0).all()
    assert (gradients[0][1, :3] == 0).all()
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_empty(shape):
    batch, n, heads = shape
    case = cases.make(SegmentLayout(0), n, batch=batch, heads=heads, d_head=8, dtype=torch.float32)
    out, *gradients = case.run_with_gradients("native")
    assert out.shape == (batch, n, heads, 8)
    for leaf, gradient in zip(case.leaves.values(), gradients, strict=True):
        assert gradient.shape == leaf.shape and (gradient == 0).all()


def test_large_scores_stay_finite():
    case = cases.make(SegmentLayout(2), 40, d_head=16, d_pos=32, dtype=torch.float32)
    case.leaves["query"].data.mul_(1e4)
    for ours, reference in zip(
        case.run_with_gradients("native"), case.run_with_gradients("reference"), strict=True
    ):
        assert ours.isfinite().all()
        assert golden.error(ours, reference) < 1e-2


def _wide_case(shift="signed"):
    sizes = {"batch": 5, "d_head": 32, "d_pos": 64}
    return cases.make(SegmentLayout(15, cache_len=17), 111, shift=shift, dtype=torch.float32, **sizes)


@pytest.mark.parametrize("shift", ["signed", "transformer_xl"])
def test_every_run_and_number_of_threads_gives_the_same_bits(shift):
    case = _wide_case(shift)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = case.run_with_gradients("native")
        torch.set_num_threads(2)
        for _ in range(20):
            assert all(map(torch.equal, case.run_with_gradients("native"), alone))
    finally:
        torch.set_num_threads(threads)


def test_outputs_are_written_whole(monkeypatch):
    """Whatever the memory of the results held before."""
    case = _wide_case("transformer_xl")
    expected = case.run_with_gradients("native")
    empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))
    assert all(map(torch.equal, case.run_with_gradients("native"), expected))


def test_strided_inputs():
    case = _wide_case()
    expected = case.run_with_gradients("native")
    for change in ("wide", "reversed dims"):
        strided = cases.Case(case.layout, case.shift, dict(case.leaves))
        for name in ("query", "key", "value"):
            leaf = case.leaves[name].detach()
            if change == "wide":
                leaf = torch.stack([leaf] * 3, dim=2)[:, :, 1]
            else:
                leaf = leaf.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
            assert not leaf.is_contiguous()
            strided.leaves[name] = leaf.requires_grad_()
        for ours, wanted in zip(strided.run_with_gradients("native"), expected, strict=True):
            assert torch.equal(ours, wanted)


@pytest.mark.parametrize("gradient", ["expanded", "transposed"])
def test_strided_gradient(gradient):
    case = _wide_case()
    out = case.run("native")
    given = torch.ones(()).expand(out.shape)
    if gradient == "transposed":
        given = torch.linspace(0, 1, out.numel()).view(out.shape[::-1]).permute(3, 2, 1, 0)
    leaves = list(case.leaves.values())
    ours = torch.autograd.grad(out, leaves, given, retain_graph=True)
    assert all(map(torch.equal, ours, torch.autograd.grad(out, leaves, given.contiguous())))


def test_some_inputs_need_no_gradient():
    case = _wide_case()
    expected = case.run_with_gradients("native")
    for name, leaf in case.leaves.items():
        leaf.requires_grad_(name in ("key", "weight"))
    out = case.run("native")
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    key, weight = torch.autograd.grad((out * weights).sum(), [case.leaves["key"], case.leaves["weight"]])
    assert torch.equal(key, expected[2]) and torch.equal(weight, expected[4])
    with torch.no_grad():
        assert torch.equal(case.run("native"), expected[0])


@pytest.mark.parametrize("shift", ["signed", "transformer_xl"])
def test_compiles_whole(shift):
    case = cases.make(
        SegmentLayout(3, cache_len=4), 9, d_head=8, shift=shift, dtype=torch.float32, padded=True
    )
    torch.compiler.reset()
    expected = case.run_with_gradients("native")
    forward = torch.compile(lambda: case.run("native"), fullgraph=True)
    out = forward()
    torch.testing.assert_close(out, expected[0], rtol=1e-5, atol=1e-6)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    gradients = torch.autograd.grad((out * weights).sum(), list(case.leaves.values()))
    for ours, eager in zip(gradients, expected[1:], strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("relative", [True, False])
def test_opcheck(relative):
    layout, n = SegmentLayout(2, cache_len=3), 5
    case = cases.make(layout, n, d_head=8, d_pos=6, dtype=torch.float32)
    leaves = [case.leaves[name] for name in ("query", "key", "value")]
    others = [None] * 4
    if relative:
        columns = native._table_columns(layout, layout.query_length(n))
        table = torch.randn(3, 8, columns, requires_grad=True)
        hidden = torch.tensor([[0, 0], [5, 7]], dtype=torch.int32)
        others = [case.leaves["content_bias"], case.leaves["position_bias"], table, hidden]
    rest = ([2, 1, 3, 0], relative, 0.5)
    torch.library.opcheck(torch.ops.rate_kernels.native_attention.default, (*leaves, *others, *rest))
    detached = [None if x is None else x.detach() for x in (*leaves, *others)]
    out, statistics = torch.ops.rate_kernels.native_attention(*detached, *rest)
    torch.library.opcheck(
        torch.ops.rate_kernels.native_attention_backward.default,
        (torch.randn_like(out), statistics, *detached, *rest),
    )


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"dtype": torch.float64}, {}, "it takes float32 only, got float64"),
        ({"dtype": torch.bfloat16}, {}, "it takes float32 only, got bfloat16"),
        ({}, {"dropout_p": 0.1}, r"it has no dropout, got dropout_p 0\.1"),
        ({"d_head": 264}, {}, "it takes a d_head of at most 256, got 264"),
    ],
)
def test_what_it_does_not_take_goes_on_to_sdpa(changes, options, reason, monkeypatch):
    case = cases.make(SegmentLayout(1), 3, **({"dtype": torch.float32} | changes))
    with pytest.raises(
        BackendUnavailable, match=f"memory_attention cannot run on backend 'native': {reason}"
    ):
        case.run("native", **options)
    monkeypatch.setattr(native, "memory_attention", None)
    assert case.run(None, **options).shape == case.leaves["query"].shape


def test_it_is_the_default_where_it_runs(monkeypatch):
    case = _wide_case()
    expected = case.run("native")
    assert torch.equal(case.run(None), expected)
    assert api.obstacles(torch.device("cpu"))["native"] is None
    assert api.obstacles(torch.device("meta"))["native"] == "it runs on cpu tensors only, got meta"
    monkeypatch.setattr(extension, "_load", lambda: (None, "the extension is not built"))
    assert not torch.equal(case.run(None), expected)
    with pytest.raises(BackendUnavailable, match="native': the extension is not built"):
        case.run("native")


def test_inference_tensors_do_not_spoil_later_calls():
    """Tables made in inference mode are kept, and must serve training too."""
    case = cases.make(SegmentLayout(4, cache_len=9), 21, d_head=8, dtype=torch.float32)
    native._visible.cache_clear()
    native._distances.cache_clear()
    with torch.inference_mode():
        out = case.run("native")
    assert torch.equal(case.run_with_gradients("native")[0], out)


def test_a_layout_made_inside_a_compiled_function():
    case = cases.make(SegmentLayout(2, cache_len=10), 9, d_head=8, d_pos=16, dtype=torch.float32)

    def run(cache: torch.Tensor) -> torch.Tensor:
        made = cases.Case(SegmentLayout(2, True, cache.shape[1]), case.shift, case.leaves)
        return made.run("native")

    compiled = torch.compile(run, fullgraph=True)
    torch.testing.assert_close(compiled(torch.zeros(1, 10)), case.run("reference"), rtol=1e-4, atol=1e-5)
