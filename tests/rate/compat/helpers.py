"""What tests of the drop-in classes share: windows, padding, and what every module must do."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import torch
from torch import Tensor, nn

PADDINGS = ("none", "left", "right", "both")


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Parameters that no default hides: norms that scale and shift, biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.copy_(scale * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


def real_steps(batch: int, steps: int, padding: str, seed: int = 0) -> Tensor:
    """Bool ``[B, K]``: rows with different numbers of padded steps, at least one real step in each."""
    generator = torch.Generator().manual_seed(seed)
    real = torch.ones(batch, steps, dtype=torch.bool)
    if padding == "none":
        return real
    for row in range(batch):
        padded = int(torch.randint(0, steps, (1,), generator=generator))
        front = {"left": padded, "right": 0, "both": padded // 2}[padding]
        real[row, :front] = False
        real[row, steps - (padded - front) :] = False
    return real


def successive(real: Tensor, first: Tensor) -> Tensor:
    """Timesteps ``[B, K]`` that count from ``first [B]`` over real steps and are 0 elsewhere."""
    return torch.where(real, first[:, None] + real.cumsum(1) - 1, 0)


def gradients(model: nn.Module, names: Callable[[nn.Module], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The parameters' gradients under the names that ``names`` gives a model's parameters."""
    holder = copy.deepcopy(model)
    with torch.no_grad():
        for there, here in zip(holder.parameters(), model.parameters(), strict=True):
            there.copy_(torch.zeros_like(here) if here.grad is None else here.grad)
    return names(holder)


def check_module(build: Callable[[], nn.Module], call: Callable[[nn.Module, torch.dtype], Tensor]) -> None:
    """Copies, files, dtypes, autocast, DataParallel and export of a module, as for any other.

    ``build`` makes the same model every time; ``call(model, dtype)`` runs it on inputs of a dtype.
    """
    model = build().eval()
    expected = call(model, torch.float32)
    torch.testing.assert_close(call(copy.deepcopy(model), torch.float32), expected, rtol=0, atol=0)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    torch.testing.assert_close(
        call(torch.load(file, weights_only=False), torch.float32), expected, rtol=0, atol=0
    )
    torch.testing.assert_close(call(nn.DataParallel(model), torch.float32), expected, rtol=0, atol=0)
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)):
        found = call(build().to(dtype).eval(), dtype)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)
    halved = call(build().half().eval(), torch.float16)
    torch.testing.assert_close(halved.float(), expected, rtol=2e-2, atol=2e-2)
    with torch.autocast("cpu", torch.bfloat16):
        found = call(build().eval(), torch.float32)
    torch.testing.assert_close(found.float(), expected, rtol=1e-1, atol=1e-1)
