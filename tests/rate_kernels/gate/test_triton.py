"""The gate's Triton kernels: their source in Triton's interpreter."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rate_kernels import configurations
from rate_kernels.backends import BackendUnavailable
from rate_kernels.gate.triton import operators
from tests.rate_kernels.gate import cases

pytestmark = pytest.mark.interpreter
SIZES = [  # batch, m, d, heads, activation
    (1, 1, 8, 1, "relu"),
    (3, 1, 8, 8, "tanh"),
    (7, 5, 32, 4, "relu"),
    (3, 15, 64, 2, "leaky_relu"),
    (3, 15, 96, 3, "none"),
    (1, 20, 64, 8, "tanh"),
    (1, 33, 96, 1, "relu"),
    (3, 33, 24, 3, "leaky_relu"),
    (1, 64, 96, 2, "none"),
    (3, 64, 32, 1, "tanh"),
]


@pytest.fixture(autouse=True)
def poison():
    """Fresh memory is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def interpreted():
    if not operators.triton_support.interpreted():
        pytest.skip("needs TRITON_INTERPRET=1")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_result_and_gradients(size, dtype):
    interpreted()
    case = cases.make(*size)
    exact = case.run("reference", torch.float64)
    actual = case.run("triton", dtype)
    assert not actual[1 + cases.NAMES.index("key_bias")].any()  # it moves no weight
    if dtype == torch.float64:
        assert max(cases.errors(actual, exact).values()) < 1e-13
    else:
        cases.assert_as_exact(actual, case.run("reference", dtype), exact)


@pytest.mark.parametrize("heads", [8, 1])
def test_largest_size(heads, monkeypatch):
    """In large tiles, which the interpreter goes through faster than a device's."""
    interpreted()
    settings = {
        "rows": 64,
        "columns": 128,
        "inner": 256,
        "tile": 256,
        "step": 64,
        "num_warps": 4,
        "num_stages": 1,
    }
    monkeypatch.setattr(configurations, "find", lambda *_: settings)
    case = cases.make(1, 64, 512, heads)
    exact = case.run("reference", torch.float64)
    cases.assert_as_exact(case.run("triton", torch.float32), case.run("reference", torch.float32), exact)


def test_half_precision():
    """float16, which the interpreter multiplies as a device does: products rounded once, sums in float32."""
    interpreted()
    case = cases.make(3, 15, 64, 2)
    exact = case.run("reference", torch.float64)
    cases.assert_as_exact(case.run("triton", torch.float16), case.run("reference", torch.float16), exact)


def test_autocast_multiplies_in_its_dtype():
    interpreted()
    case = cases.make(3, 15, 64, 2, "tanh")
    exact = case.run("reference", torch.float64)
    with torch.autocast("cpu", torch.float16):
        actual, peer = (case.run(x, torch.float32) for x in ("triton", "reference"))
    assert {x.dtype for x in actual} == {torch.float32}
    allowed = cases.errors(peer, exact)
    for name, error in cases.errors(actual, exact).items():
        assert error <= 2 * allowed[name], name
    assert cases.errors(actual, exact)["out"] > 1e-5  # the products were in float16


def test_strided_inputs_are_read_in_place(monkeypatch):
    interpreted()
    case = cases.make(3, 5, 32, 4)
    expected = case.run("triton", torch.float32)
    leaves = [x.detach() for x in case.cast(torch.float32)]
    wide = torch.randn(3, 9, 40)
    wide[:, 2:7, 4:36] = leaves[0]
    swapped = leaves[1].transpose(0, 1).contiguous().transpose(0, 1)
    leaves[:2] = wide[:, 2:7, 4:36], swapped
    leaves = [x.requires_grad_() for x in leaves]
    gradient = case.gradient.float().transpose(0, 1).contiguous().transpose(0, 1)
    copied = []
    monkeypatch.setattr(operators, "_rows", lambda x: copied.append(x.stride(-1) != 1) or x)
    out = case.call(leaves, "triton")
    actual = [out.detach(), *torch.autograd.grad(out, leaves, gradient)]
    assert len(copied) == 5 and not any(copied)
    assert all(map(torch.equal, actual, expected))


def test_any_strides():
    """Columns apart, rows repeated, a gradient without memory of its own, transposed weights."""
    interpreted()
    case = cases.make(3, 5, 8, 2)
    memory, update, *parameters = (x.detach().float() for x in case.leaves)
    leaves = [
        memory.transpose(1, 2).contiguous().transpose(1, 2),
        update[:, :1].expand(3, 5, 8),
        *(x.t().contiguous().t() if x.dim() == 2 else x for x in parameters),
    ]
    results = {}
    for backend in ("triton", "reference"):
        leaves = [x.detach().requires_grad_() for x in leaves]
        out = case.call(leaves, backend)
        results[backend] = [out, *torch.autograd.grad(out.sum(), leaves)]
    for actual, expected in zip(results["triton"], results["reference"], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5)


def test_only_the_gradients_asked_for():
    interpreted()
    case = cases.make(3, 5, 32, 2)
    _, *expected = case.run("triton", torch.float32)
    for names in (
        ["memory"],
        ["update"],
        ["query_weight"],
        ["key_bias"],
        ["memory", "value_bias", "output_weight"],
    ):
        leaves = [x.detach() for x in case.cast(torch.float32)]
        places = [cases.NAMES.index(name) for name in names]
        asked = [leaves[place].requires_grad_() for place in places]
        gradients = torch.autograd.grad(case.call(leaves, "triton"), asked, case.gradient.float())
        assert all(map(torch.equal, gradients, (expected[place] for place in places))), names


def test_gradients_not_asked_for_are_not_made():
    interpreted()
    case = cases.make(2, 3, 16, 2)
    memory, update, *parameters = (x.detach().float() for x in case.leaves)
    needed = [False, True, *[False] * 6, True, False]
    arguments = (memory, update, parameters, 2, "relu", "float32")
    gradients = operators._backward(case.gradient.float(), *arguments, needed)
    assert [x.numel() > 0 for x in gradients] == needed


def test_inputs_are_left_alone():
    interpreted()
    case = cases.make(3, 5, 32, 2)
    leaves = case.cast(torch.float32)
    before = [x.detach().clone() for x in leaves]
    gradient = case.gradient.float()
    out = case.call(leaves, "triton")
    first = torch.autograd.grad(out, leaves, gradient, retain_graph=True)
    kept = out.detach().clone()
    again = torch.autograd.grad(out, leaves, gradient)
    assert all(map(torch.equal, first, again))
    assert all(map(torch.equal, leaves, before))
    assert torch.equal(gradient, case.gradient.float()) and torch.equal(out, kept)


@pytest.mark.parametrize("shape", [(0, 5, 8), (3, 0, 8)], ids=str)
def test_nothing_to_keep(shape):
    interpreted()
    case = cases.make(*shape, 2)
    out, *gradients = case.run("triton", torch.float32)
    assert out.shape == shape
    assert [x.shape for x in gradients] == [x.shape for x in case.leaves]
    assert not any(x.any() for x in gradients)


def _distinct_settings():
    found = {}
    for row in configurations.load(Path(operators.__file__).with_name("configurations.json")):
        if row["sizes"].get("m", 64) >= 5:
            found[row["kernel"], json.dumps(row["settings"])] = row
    return found


@pytest.mark.parametrize("key", _distinct_settings(), ids=" ".join)
def test_every_row_of_the_table_computes_the_same(key, monkeypatch):
    interpreted()
    kernel, settings = key[0], json.loads(key[1])
    find = configurations.find
    chosen = lambda *arguments: settings if arguments[1] == kernel else find(*arguments)
    monkeypatch.setattr(configurations, "find", chosen)
    case = cases.make(3, 7, 80, 2, "tanh")
    actual, exact = case.run("triton", torch.float64), case.run("reference", torch.float64)
    assert max(cases.errors(actual, exact).values()) < 1e-13


# --- What torch sees ------------------------------------------------------------------------------


def test_operators():
    interpreted()
    case = cases.make(2, 3, 16, 2)
    memory, update, *parameters = case.cast(torch.float32)
    arguments = (memory, update, parameters, 2, "relu", "float32")
    torch.library.opcheck(torch.ops.rate_kernels.triton_retention_gate.default, arguments)
    tensors = [x.detach() for x in (case.gradient.float(), memory, update)]
    arguments = (*tensors, [x.detach() for x in parameters], 2, "relu", "float32", [True] * 10)
    torch.library.opcheck(torch.ops.rate_kernels.triton_retention_gate_backward.default, arguments)


def test_compiles_whole_with_any_batch():
    interpreted()
    run = torch.compile(lambda case, leaves: case.call(leaves, "triton"), fullgraph=True)
    for batch in (2, 3, 5):
        case = cases.make(batch, 3, 16, 2)
        leaves = case.cast(torch.float32)
        out = run(case, leaves)
        actual = [out.detach(), *torch.autograd.grad(out, leaves, case.gradient.float())]
        assert all(map(torch.equal, actual, case.run("triton", torch.float32)))


# --- What it does not take ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        (torch.empty(1, 65, 8), "at most 64 memory tokens, got 65"),
        (torch.empty(1, 5, 528), "a d of at most 512, got 528"),
        (torch.empty(1, 5, 8, dtype=torch.bfloat16), "interpreter multiplies bfloat16 wrongly"),
        (torch.empty(1, 5, 8, dtype=torch.int32), "float32, bfloat16 or float16, got int32"),
        (torch.empty(1, 5, 8, dtype=torch.float64, device="meta"), "got float64"),
        (torch.empty(2**29, 5, 8, device="meta"), "count rows in 32 bits, got 536870912 x 5"),
    ],
)
def test_obstacles_of_a_call(memory, reason):
    assert reason in operators.obstacle_of_call(memory)


def test_a_call_that_the_kernels_do_not_take_says_so():
    interpreted()
    with pytest.raises(
        BackendUnavailable, match="'triton': its kernels take at most 64 memory tokens, got 65"
    ):
        case = cases.make(1, 65, 8, 2)
        case.call(case.cast(torch.float32), "triton")


def test_importing_the_package_needs_no_triton():
    code = (
        "import sys; sys.modules['triton'] = None; import rate_kernels.gate;"
        "sys.exit('rate_kernels.gate.triton.forward' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
