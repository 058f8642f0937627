"""Random calls of the gate, their gradients, and errors against float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rate_kernels import GateParameters, retention_gate

NAMES = ("memory", "update", *GateParameters._fields)


@dataclass
class Case:
    """Leaves of a call in the order of NAMES, and the gradient of the result, in float64."""

    leaves: list[Tensor]
    gradient: Tensor
    num_heads: int
    activation: str

    def cast(self, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
        return [x.to(device, dtype).requires_grad_() for x in self.leaves]

    def call(self, leaves: list[Tensor], backend: str) -> Tensor:
        memory, update, *parameters = leaves
        return retention_gate(
            memory,
            update,
            GateParameters(*parameters),
            num_heads=self.num_heads,
            activation=self.activation,
            backend=backend,
        )

    def run(self, backend: str, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
        """The result and all ten gradients."""
        leaves = self.cast(dtype, device)
        out = self.call(leaves, backend)
        return [out.detach(), *torch.autograd.grad(out, leaves, self.gradient.to(out))]


def make(batch: int, m: int, d: int, num_heads: int, activation: str = "relu") -> Case:
    generator = torch.Generator().manual_seed(batch + 10 * m + 1000 * d)
    random = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    weights = [x for _ in range(4) for x in (random(d, d) * d**-0.5, random(d))]
    return Case(
        [random(batch, m, d), random(batch, m, d), *weights], random(batch, m, d), num_heads, activation
    )


def errors(actual: list[Tensor], exact: list[Tensor]) -> dict[str, float]:
    """Error of the result and every gradient by norm, over its own norm or a thousandth of the largest gradient's."""
    largest = max(float(x.norm()) for x in exact[1:])
    found = {}
    for name, x, y in zip(("out", *NAMES), actual, exact, strict=True):
        scale = float(y.norm()) if name == "out" else max(float(y.norm()), 1e-3 * largest)
        found[name] = float((x.double().cpu() - y).norm()) / scale
    return found


def assert_as_exact(actual: list[Tensor], peer: list[Tensor], exact: list[Tensor]) -> None:
    """Each error is at most twice that of PyTorch in the same dtype and one rounding."""
    rounding = torch.finfo(actual[0].dtype).eps
    allowed = errors(peer, exact)
    for name, error in errors(actual, exact).items():
        assert error <= 2 * allowed[name] + rounding, (name, error, allowed[name])
