"""What the device can do: bytes a second of a large copy, operations a second of a large matrix product.

Every floor is worked out from these two, measured in the same run, and not from a data sheet.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bench.runner import Comparison, Settings, Timed, Variant

COPY, PRODUCT = "copy, bytes read + written", "matrix product"


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """A copy and a product; ``bytes`` and ``flops`` of each are among its parameters."""
    numbers = {"tiny": 1 << 16, "cpu": 1 << 26, "gpu": 1 << 31}[settings.scale]
    n = {"tiny": 64, "cpu": 1536, "gpu": 8192}[settings.scale]
    device = settings.device

    def copy() -> Timed:
        source = torch.ones(numbers, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return Timed(lambda: target.copy_(source))

    def product() -> Timed:
        x, y = (
            torch.randn(n, n, device=device).to(settings.dtype) for _ in range(2)
        )  # zeros would be faster
        out = torch.empty(n, n, device=device, dtype=settings.dtype)
        return Timed(lambda: torch.mm(x, y, out=out))

    yield Comparison("ceilings", COPY, "forward", [Variant("PyTorch", copy)], {"bytes": 2 * numbers})
    parameters = {"flops": 2 * n**3, "n": n}
    yield Comparison("ceilings", PRODUCT, "forward", [Variant("PyTorch", product)], parameters)
