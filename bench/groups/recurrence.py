"""Packing a segment and rolling the cache, against how the published model does both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.runner import Comparison, Settings, Timed, Unavailable, Variant, WrongResult
from rate_kernels import SegmentLayout, pack_segment, roll_cache
from rate_kernels.recurrence import api

#         name             batch: gpu, cpu   m  steps  d  cache layers
SIZES = (
    ("RATE, T-Maze", 128, 32, 15, 50, 64, 0, 10),
    ("RATE, Memory Maze", 64, 16, 15, 30, 64, 360, 6),
    ("acting, one environment", 1, 1, 15, 30, 64, 360, 6),
)


def published_pack(
    memory: Tensor, returns: Tensor, observations: Tensor, actions: Tensor, layout: SegmentLayout
) -> Tensor:
    """A tensor of zeros, three strided assignments, a concatenation."""
    batch, steps, dim = returns.shape
    tokens = returns.new_zeros(batch, 3 * steps, dim)
    tokens[:, ::3], tokens[:, 1::3], tokens[:, 2::3] = returns, observations, actions
    return torch.cat([memory, tokens, memory] if layout.write_memory else [memory, tokens], dim=1)


def published_roll(cache: list[Tensor], hidden: list[Tensor], cache_len: int) -> list[Tensor]:
    """A concatenation and a slice per layer."""
    with torch.no_grad():
        rows = [torch.cat([old, new], dim=1) for old, new in zip(cache, hidden, strict=True)]
        return [row[:, -cache_len:].detach() for row in rows]


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """Packing forward and forward + backward; the roll, which has no gradient."""
    sizes = (("tiny", 2, 2, 3, 4, 16, 11, 2),) if settings.scale == "tiny" else SIZES
    for name, gpu, cpu, m, steps, d, cache_len, layers in sizes:
        batch = gpu if settings.scale == "gpu" else cpu
        size = f"{name}, batch {batch}"
        parameters = {"batch": batch, "memory": m, "steps": steps, "d_model": d, "cache": cache_len}
        generator = torch.Generator(settings.device).manual_seed(0)

        def draw(*shape: int, generator: torch.Generator = generator) -> Tensor:
            values = torch.randn(*shape, generator=generator, device=settings.device)
            return values.to(settings.dtype)

        packed = [draw(batch, m, d), *(draw(batch, steps, d) for _ in range(3))]
        for mode in ("forward", "forward + backward"):
            found = _variants(
                settings,
                functools.partial(_pack, packed, SegmentLayout(m), mode),
                pack_segment,
                published_pack,
            )
            yield Comparison("recurrence", size, f"pack_segment, {mode}", found, parameters)
        if cache_len:
            lists = [draw(batch, cache_len, d) for _ in range(layers)]
            hidden = [draw(batch, 2 * m + 3 * steps, d) for _ in range(layers)]
            timed = functools.partial(_roll, lists, hidden, cache_len)
            found = _variants(settings, timed, roll_cache, published_roll)
            yield Comparison("recurrence", size, "roll_cache", found, parameters | {"layers": layers})


def _variants(
    settings: Settings,
    timed: Callable[..., Timed],
    ours: Callable[..., object],
    published: Callable[..., object],
) -> list[Variant]:
    def build(backend: str) -> Timed:
        obstacle = api.obstacles(settings.device)[backend]
        if obstacle:
            raise Unavailable(obstacle)
        return timed(functools.partial(ours, backend=backend), published)

    found = [Variant(f"ours, {name}", functools.partial(build, name), True) for name in api.BACKENDS]
    return [*found, Variant("published", functools.partial(timed, published, published))]


def _pack(
    tensors: list[Tensor],
    layout: SegmentLayout,
    mode: str,
    pack: Callable[..., Tensor],
    expected: Callable[..., Tensor],
) -> Timed:
    _require_equal([pack(*tensors, layout)], [expected(*tensors, layout)])
    if mode == "forward":
        return Timed(lambda: pack(*tensors, layout), 0.0)
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    gradient = torch.randn_like(expected(*tensors, layout))

    def both(pack: Callable[..., Tensor] = pack) -> tuple[Tensor, ...]:
        return torch.autograd.grad(pack(*leaves, layout), leaves, gradient)

    _require_equal(both(), both(expected))
    return Timed(both, 0.0)


def _roll(
    cache: list[Tensor],
    hidden: list[Tensor],
    cache_len: int,
    roll: Callable[..., list[Tensor]],
    expected: Callable[..., list[Tensor]],
) -> Timed:
    _require_equal(roll(cache, hidden, cache_len), expected(cache, hidden, cache_len))
    return Timed(lambda: roll(cache, hidden, cache_len), 0.0)


def _require_equal(
    actual: list[Tensor] | tuple[Tensor, ...], expected: list[Tensor] | tuple[Tensor, ...]
) -> None:
    """Copies are exact, and so is the sum of two places' gradients."""
    for index, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
        if not torch.equal(ours, theirs):
            raise WrongResult(f"tensor {index} is not the copy it should be")
