"""Relative positions and their separable form.

The position term of an attention score is ``(q_i + v) . W e(i - j)`` with ``e(d) = [sin(w d), cos(w d)]`` and
``w_k = 10000^(-2k / d_pos)``. With ``[a, b] = (q_i + v) W`` (the halves that meet sin and cos),

    (q_i + v) . W e(i - j) = q~_i . phi_j
    q~_i  = [a sin(w i) + b cos(w i),  b sin(w i) - a cos(w i)]       depends on the query alone
    phi_j = [cos(w j), sin(w j)]                                      constant

so the term is a plain inner product of the *rotated* query with a table.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

SHIFTS = ("signed", "transformer_xl")


@dataclass(frozen=True, eq=False)
class RelativePosition:
    """Parameters of the relative-position term.

    Args:
        weight: ``W [H, d_head, d_pos]``, d_pos even: columns 0 .. d_pos/2 - 1 meet the sines, the rest the cosines.
        content_bias: ``u [H, d_head]``, added to the query where it meets a key.
        position_bias: ``v [H, d_head]``, added to the query where it meets a distance.
        shift: what a memory token sees of tokens ahead of it. ``"signed"``: the true, negative distance.
            ``"transformer_xl"``: what the relative shift of Transformer-XL leaves there (distance + 1 counts as 0,
            farther cells read the next query at the farthest distances), for checkpoints trained with it.

    Raises:
        ValueError: for a shape that does not fit or an unknown shift.
    """

    weight: Tensor
    content_bias: Tensor
    position_bias: Tensor
    shift: str = "signed"

    def __post_init__(self) -> None:
        if self.shift not in SHIFTS:
            raise ValueError(f"shift must be one of {', '.join(SHIFTS)}, got {self.shift!r}")
        if self.weight.dim() != 3 or self.weight.shape[-1] % 2:
            raise ValueError(
                f"weight must be [H, d_head, d_pos] with d_pos even, got {list(self.weight.shape)}"
            )
        for name in ("content_bias", "position_bias"):
            shape = getattr(self, name).shape
            if shape != self.weight.shape[:2]:
                raise ValueError(f"{name} must be {list(self.weight.shape[:2])}, got {list(shape)}")


def frequencies(d_pos: int, device: torch.device | None = None) -> Tensor:
    """``w_k = 10000^(-2k / d_pos)``, float64 ``[d_pos / 2]``."""
    exponent = torch.arange(0, d_pos, 2, dtype=torch.float64, device=device) / d_pos
    return torch.pow(10000.0, -exponent)


def sinusoids(positions: Tensor, d_pos: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Sine and cosine of every angle, ``[len(positions), d_pos / 2]`` each; made in float64, rounded once."""
    angles = positions.to(torch.float64)[:, None] * frequencies(d_pos, positions.device)
    return angles.sin().to(dtype), angles.cos().to(dtype)


@functools.lru_cache(maxsize=64)
def _cached_table(
    start: int, stop: int, d_pos: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.no_grad():
        return sinusoids(torch.arange(start, stop, device=device), d_pos, dtype)


def table(
    start: int, stop: int, d_pos: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """:func:`sinusoids` of the positions ``start .. stop - 1``, kept between calls outside ``torch.compile``."""
    if torch.compiler.is_compiling():
        return sinusoids(torch.arange(start, stop, device=device), d_pos, dtype)
    return _cached_table(start, stop, d_pos, dtype, device)


def key_table(length: int, d_pos: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``phi [length, d_pos]``: the position half of every key."""
    sine, cosine = table(0, length, d_pos, dtype, device)
    return torch.cat([cosine, sine], dim=-1)


def position_query(query: Tensor, position: RelativePosition) -> Tensor:
    """``[a, b] = (q_i + v) W`` for every head.

    Args:
        query: ``[H, B, L, d_head]``, contiguous.

    Returns:
        ``[H, B, L, d_pos]``, to be rotated.
    """
    heads, batch, length, d_head = query.shape
    bias = torch.bmm(position.position_bias[:, None], position.weight)
    projected = torch.baddbmm(bias, query.reshape(heads, batch * length, d_head), position.weight)
    return projected.view(heads, batch, length, -1)


class _Rotation(torch.autograd.Function):
    """``[a, b] -> [a sin + b cos, b sin - a cos]`` in two passes over the data, and its transpose."""

    @staticmethod
    def forward(ctx, halves: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        ctx.save_for_backward(sine, cosine)
        return _rotated(halves, sine, cosine)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def, override]
        sine, cosine = ctx.saved_tensors
        return _rotated(gradient, sine, -cosine), None, None


def _rotated(halves: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
    a, b = halves.chunk(2, dim=-1)
    result = torch.empty_like(halves, memory_format=torch.contiguous_format)
    first, second = result.chunk(2, dim=-1)
    torch.mul(a, sine, out=first).addcmul_(b, cosine)
    torch.mul(b, sine, out=second).addcmul_(a, cosine, value=-1)
    return result


def rotate(halves: Tensor, start: int) -> Tensor:
    """``q~`` of the queries at positions ``start, start + 1, ...``: ``[..., L, d_pos] -> [..., L, d_pos]``."""
    length, d_pos = halves.shape[-2:]
    sine, cosine = table(start, start + length, d_pos, halves.dtype, halves.device)
    if torch.compiler.is_compiling():  # the compiler fuses these passes itself
        a, b = halves.chunk(2, dim=-1)
        return torch.cat([a * sine + b * cosine, b * sine - a * cosine], dim=-1)
    return _Rotation.apply(halves, sine, cosine)


def ahead_correction(halves: Tensor, rows: slice, cache_len: int, key_length: int) -> Tensor:
    """What ``shift="transformer_xl"`` adds to the signed scores of a memory block, where the key is ahead.

    With M = cache length and Lk keys, the published shift leaves 0 in cell ``j = i + M + 1`` and
    ``(q_{i+1} + v) . W e(Lk + M + 1 - (j - i))`` in cells ``j >= i + M + 2``. Both are separable: the next query,
    rotated as if it stood at position ``i + Lk + M + 1``.

    Args:
        halves: ``[H, B, Lq, d_pos]`` from :func:`position_query`.
        rows: the block's rows; its keys are the same rows, after the cache.

    Returns:
        ``[H, B, m, m]``: published minus signed above the diagonal, 0 elsewhere.
    """
    block = halves[..., rows, :]
    m = block.shape[-2]
    first = rows.start + cache_len
    sine, cosine = table(first, first + m, halves.shape[-1], halves.dtype, halves.device)
    keys = torch.cat([cosine, sine], dim=-1).t()
    signed = rotate(block, first) @ keys
    following = torch.nn.functional.pad(block[..., 1:, :], (0, 0, 0, 1))
    published = rotate(following, first + key_length + 1) @ keys
    return published.triu(2) - signed.triu(1)
