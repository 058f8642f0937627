"""Memory-token attention: every backend of ours against the published form, PyTorch's SDPA and FlexAttention."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from bench.baselines import attention as baselines
from bench.oracle import attention_rows, checked_rows
from bench.runner import TOLERANCE, Comparison, Settings, Timed, Unavailable, Variant, check
from bench.sizes import AttentionSize, attention_sizes
from rate_kernels import RelativePosition, SegmentLayout, memory_attention
from rate_kernels.attention import api, reference

MODES = ("forward", "forward + backward")
LEAVES = ("query", "key", "value", "W", "u", "v")
_SCORE_LIMIT = {"cpu": 40e6, "cuda": 4.5e9}
"""Elements of one score matrix above which forms that store several are left out, by device."""


class Problem:
    """Fresh random leaves of one size, an upstream gradient, and the check of an answer."""

    def __init__(self, size: AttentionSize, settings: Settings, seed: int = 0) -> None:
        self.size, self.dtype, self.device = size, settings.dtype, settings.device
        generator = torch.Generator(settings.device).manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=self.device).to(self.dtype)

        b, h, d = size.batch, size.heads, size.d_head
        self.leaves = [draw(b, length, h, d) for length in (size.queries, size.keys, size.keys)]
        self.leaves += [draw(h, d, size.d_pos) * size.d_pos**-0.5, draw(h, d), draw(h, d)]
        for leaf in self.leaves:
            leaf.requires_grad_()
        self.gradient = draw(b, size.queries, h, d)

    def run(self, attend: baselines.Attention, gradients: bool = True) -> Tensor:
        """The output; without ``gradients`` from tensors that ask for none."""
        leaves = self.leaves if gradients else [leaf.detach() for leaf in self.leaves]
        return attend(*leaves[:3], self.size.layout, *leaves[3:])

    def both(self, attend: baselines.Attention) -> list[Tensor]:
        return [*torch.autograd.grad(self.run(attend), self.leaves, self.gradient)]

    @functools.cache  # noqa: B019 - a problem lives as long as its comparison
    def _expected(self, memory_rows: bool) -> tuple[list[int], Tensor, tuple[Tensor, ...]]:
        """Rows that are checked, their output in float64, and all gradients when nothing else has one."""
        rows = checked_rows(self.size.layout, self.size.tokens, memory_rows)
        precise = [leaf.detach().double().requires_grad_() for leaf in self.leaves]
        out = attention_rows(precise, self.size.layout, rows)
        return rows, out.detach(), torch.autograd.grad(out, precise, self.gradient[:, rows].double())

    def check(self, attend: baselines.Attention, backward: bool, memory_rows: bool) -> float:
        """Largest relative error of out, and with ``backward`` of all gradients, against float64."""
        rows, expected, gradients = self._expected(memory_rows)
        with torch.set_grad_enabled(backward):
            out = self.run(attend, backward)
        named = {"out": (out[:, rows], expected)}
        if backward:
            gradient = torch.zeros_like(self.gradient)
            gradient[:, rows] = self.gradient[:, rows]
            ours, theirs = torch.autograd.grad(out, self.leaves, gradient), gradients
            named |= {f"gradient of {n}": pair for n, *pair in zip(LEAVES, ours, theirs, strict=True)}  # type: ignore[misc]
        return check(named, TOLERANCE[self.dtype])


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """Every size, forward and forward + backward; those that compile last, in case the time does not reach."""
    for size in sorted(attention_sizes(settings.scale), key=lambda size: settings.compiled and size.compiled):
        problem = functools.cache(functools.partial(Problem, size, settings))
        for mode in MODES:
            yield Comparison(
                "attention",
                size.name,
                mode,
                variants(size, mode, settings, problem),
                size.parameters() | {"kind": size.kind, "visible_pairs": size.visible_pairs()},
                memory=True,
            )


def variants(
    size: AttentionSize, mode: str, settings: Settings, problem: Callable[[], Problem]
) -> list[Variant]:
    """Ours by backend, then the baselines."""
    backward = mode != "forward"

    def timed(attend: baselines.Attention, memory_rows: bool = True) -> Timed:
        with (
            warnings.catch_warnings()
        ):  # FlexAttention warns that it is not compiled: that is what is measured
            warnings.simplefilter("ignore")
            error = problem().check(attend, backward, memory_rows)
        if backward:
            return Timed(lambda: problem().both(attend), error)

        def forward() -> Tensor:
            with torch.no_grad():
                return problem().run(attend, gradients=False)

        return Timed(forward, error)

    def ours(backend: str) -> Timed:
        obstacle = api.obstacles(settings.device)[backend]
        if obstacle:
            raise Unavailable(obstacle)
        if backend == "reference":
            require_scores(size, settings)
        return timed(functools.partial(our_attention, backend=backend))

    def baseline(attend: baselines.Attention, compiled: bool, scores: bool, published: bool) -> Timed:
        if scores:
            require_scores(size, settings)
        if compiled:
            logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
            attend = torch.compile(attend, dynamic=False)
        return timed(attend, memory_rows=not published)

    def flex(attend: Callable[..., Tensor], compiled: bool, scores: bool) -> Timed:
        if backward and settings.device.type == "cpu":
            raise Unavailable("FlexAttention has no backward pass on a CPU")
        if scores or not compiled:
            require_scores(size, settings)
        kernel = torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
        return timed(functools.partial(attend, flex=kernel))

    found = [
        Variant(f"ours, {backend}", functools.partial(ours, backend), True)
        for backend in api.BACKENDS
        if backend != "reference"
    ]
    found += [Variant("reference (ours, plain PyTorch)", functools.partial(ours, "reference"))]
    table: list[tuple[str, baselines.Attention, bool, bool]] = [
        ("published", baselines.published, True, True),
        ("published, no host copies", baselines.published_without_host_copies, True, True),
        ("SDPA, bias", baselines.sdpa_with_bias, True, False),
        ("SDPA, separable", baselines.sdpa_separable, False, False),
    ]
    for name, attend, scores, published in table:
        found.append(Variant(name, functools.partial(baseline, attend, False, scores, published)))
    with_flex = (
        ("FlexAttention, bias", baselines.flex_with_bias),
        ("FlexAttention, separable", baselines.flex_separable),
    )
    for name, attend in with_flex:
        scores = attend is baselines.flex_with_bias
        found.append(Variant(name, functools.partial(flex, attend, False, scores)))
    gpu = settings.device.type == "cuda"
    if (
        settings.compiled and size.compiled and (backward or not gpu)
    ):  # compiling costs a GPU's machine too much
        for name, attend, scores, published in table[1:]:
            build = functools.partial(baseline, attend, True, scores, published)
            found.append(Variant(f"{name}, compiled", build))
        for name, attend in with_flex:
            scores = attend is baselines.flex_with_bias
            found.append(Variant(f"{name}, compiled", functools.partial(flex, attend, True, scores)))
        build = functools.partial(baseline, plain_reference, True, True, False)
        found.append(Variant("reference (ours, plain PyTorch), compiled", build))
    return found


def our_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: SegmentLayout, *position: Tensor, backend: str | None
) -> Tensor:
    """:func:`rate_kernels.memory_attention` with the baselines' arguments."""
    return memory_attention(query, key, value, layout, RelativePosition(*position), backend=backend)


def plain_reference(
    query: Tensor, key: Tensor, value: Tensor, layout: SegmentLayout, *position: Tensor
) -> Tensor:
    """The specification without the checks around it."""
    return reference.memory_attention(
        query, key, value, layout, RelativePosition(*position), query.shape[-1] ** -0.5, 0.0, None
    )


def require_scores(size: AttentionSize, settings: Settings) -> None:
    """Raises :class:`Unavailable` where score matrices would not fit the device with room to spare."""
    limit = _SCORE_LIMIT[settings.device.type]
    if size.score_elements > limit:
        gigabytes = size.score_elements * settings.dtype.itemsize / 1e9
        raise Unavailable(
            f"stores several score matrices of {gigabytes:.1f} GB each: not tried on this device"
        )
