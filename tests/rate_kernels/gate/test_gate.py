"""The memory retention gate."""

import pytest
import torch

from rate_kernels import GateParameters, retention_gate
from tests import golden
from tests.conftest import INTERPRETED

pytestmark = pytest.mark.interpreter
NAMES = [f"{part}_{kind}" for part in ("wq", "wk", "wv", "dense") for kind in ("weight", "bias")]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "none"])
def test_published_gate(activation):
    meta, arrays = golden.load(f"gate_{activation}")
    assert meta["activation"] == activation
    memory, update = arrays["mem"].requires_grad_(), arrays["update"].requires_grad_()
    parameters = GateParameters(*(arrays[name].requires_grad_() for name in NAMES))
    out = retention_gate(memory, update, parameters, num_heads=meta["n_head"], activation=activation)
    assert golden.error(out, arrays["out"]) < 1e-5
    leaves = {"mem": memory, "update": update, **dict(zip(NAMES, parameters, strict=True))}
    gradients = torch.autograd.grad((out * arrays["grad_out"]).sum(), list(leaves.values()))
    scale = max(float(arrays[f"d_{name}"].norm()) for name in leaves)
    for name, gradient in zip(leaves, gradients, strict=True):
        if name == "wk_bias":  # shifts all scores of a row alike: its gradient is zero but for rounding
            assert float(gradient.norm()) < 1e-5 * scale
        else:
            assert golden.error(gradient, arrays[f"d_{name}"]) < 1e-5, name


def _arguments(d=8, m=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    leaf = lambda *s: torch.randn(*s, generator=generator, dtype=dtype, requires_grad=True)
    return leaf(2, m, d), leaf(2, m, d), GateParameters(*(leaf(*s) for s in [(d, d), (d,)] * 4))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "none"])
@pytest.mark.parametrize("m", [1, 3])
def test_gradcheck(activation, m):
    memory, update, parameters = _arguments(m=m)

    def run(memory, update, *parameters):
        return retention_gate(memory, update, GateParameters(*parameters), num_heads=2, activation=activation)

    # The interpreter takes seconds for what a fast check leaves out: a derivative for each of the 300 numbers.
    assert torch.autograd.gradcheck(run, (memory, update, *parameters), fast_mode=INTERPRETED)


def test_compiles_whole():
    memory, update, parameters = _arguments(dtype=torch.float32)
    run = lambda: retention_gate(memory, update, parameters, num_heads=4)
    torch.testing.assert_close(torch.compile(run, fullgraph=True)(), run())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"memory": torch.zeros(3, 8)}, ValueError, r"memory must be \[B, m, d\], got \[3, 8\]"),
        (
            {"update": torch.zeros(2, 4, 8)},
            ValueError,
            r"update must be \[2, 3, 8\] as memory is, got \[2, 4, 8\]",
        ),
        ({"num_heads": 3}, ValueError, "num_heads must divide d = 8, got 3"),
        (
            {"activation": "elu"},
            ValueError,
            "activation must be one of relu, leaky_relu, tanh, none, got 'elu'",
        ),
        (
            {"update": torch.zeros(2, 3, 8)},
            TypeError,
            "update must have memory's dtype torch.float64, got torch.float32",
        ),
        ({"backend": "sdpa"}, ValueError, "backend of retention_gate must be one of .*, got 'sdpa'"),
    ],
)
def test_bad_arguments_are_named(changes, error, message):
    memory, update, parameters = _arguments()
    arguments = {"memory": memory, "update": update, "parameters": parameters, "num_heads": 2} | changes
    with pytest.raises(error, match=message):
        retention_gate(**arguments)


def test_a_bad_parameter_is_named():
    memory, update, parameters = _arguments()
    with pytest.raises(ValueError, match=r"parameters.value_bias must be \[8\], got \[4\]"):
        retention_gate(memory, update, parameters._replace(value_bias=torch.zeros(4)), num_heads=2)
