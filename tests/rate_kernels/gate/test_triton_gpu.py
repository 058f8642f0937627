"""The gate's Triton kernels on a device."""

import pytest
import torch

from tests.rate_kernels.gate import cases

pytestmark = pytest.mark.gpu
SIZES = [  # batch, m, d, heads, activation
    (128, 15, 64, 2, "relu"),
    (129, 5, 128, 4, "tanh"),
    (65, 20, 128, 1, "relu"),
    (33, 20, 96, 2, "leaky_relu"),
    (7, 64, 512, 8, "relu"),
    (32, 15, 512, 1, "tanh"),
    (64, 15, 256, 4, "none"),
    (3, 1, 8, 8, "relu"),
]


@pytest.fixture(params=["bfloat16", "float16", "tf32", "float32"])
def dtype(request):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if request.param == "tf32" else "highest")
    yield torch.float32 if request.param == "tf32" else getattr(torch, request.param)
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_error_is_within_twice_that_of_torch(size, dtype):
    case = cases.make(*size)
    exact = case.run("reference", torch.float64)
    actual, peer = (case.run(backend, dtype, "cuda") for backend in ("triton", "reference"))
    cases.assert_as_exact(actual, peer, exact)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_repeats_to_the_bit(size, dtype):
    case = cases.make(*size)
    first = case.run("triton", dtype, "cuda")
    for _ in range(50):
        assert all(map(torch.equal, case.run("triton", dtype, "cuda"), first))


def test_autocast_multiplies_in_its_dtype():
    case = cases.make(128, 15, 64, 2)
    exact = case.run("reference", torch.float64)
    with torch.autocast("cuda", torch.bfloat16):
        actual, peer = (case.run(x, torch.float32, "cuda") for x in ("triton", "reference"))
    assert {x.dtype for x in actual} == {torch.float32}
    allowed = cases.errors(peer, exact)
    for name, error in cases.errors(actual, exact).items():
        assert error <= 2 * allowed[name], name


def test_runs_in_a_cuda_graph():
    case = cases.make(32, 15, 64, 2)
    leaves = case.cast(torch.bfloat16, "cuda")
    gradient = case.gradient.to("cuda", torch.bfloat16)

    def step():
        out = case.call(leaves, "triton")
        return [out, *torch.autograd.grad(out, leaves, gradient)]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        expected = [x.detach().clone() for x in step()]
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    for _ in range(3):
        for x in results:
            x.detach().fill_(float("nan"))
        graph.replay()
        assert all(map(torch.equal, results, expected))


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiles_whole(mode):
    case = cases.make(32, 15, 64, 2)
    run = torch.compile(lambda leaves: case.call(leaves, "triton"), fullgraph=True, mode=mode)
    expected = case.run("triton", torch.bfloat16, "cuda")
    for _ in range(3):
        leaves = case.cast(torch.bfloat16, "cuda")
        out = run(leaves)
        gradients = torch.autograd.grad(out, leaves, case.gradient.to(out))
        assert all(map(torch.equal, [out, *gradients], expected))


def test_is_the_first_choice():
    from rate_kernels import backends
    from rate_kernels.gate import api

    found = api.obstacles(torch.device("cuda"))
    assert next(iter(found)) == "triton" and backends.choose("retention_gate", found, None) == "triton"
