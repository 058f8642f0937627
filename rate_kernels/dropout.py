"""Dropout masks that are cheap to draw on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

_LEVELS = 1 << 16


def keep_mask(shape: torch.Size, dropout_p: float, like: Tensor) -> Tensor:
    """``1 / q`` where an element is kept and 0 where it is dropped, so that a product with it keeps the mean.

    Drawn from PyTorch's default generator. On a CPU one 64-bit number decides four elements, which is about six times
    as fast as a Bernoulli draw each; the probability is then rounded to a multiple of 2^-16, and q to match.

    Args:
        shape: of the mask.
        dropout_p: probability of dropping, 0 <= p < 1.
        like: gives dtype and device.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape).bernoulli_(1 - dropout_p).div_(1 - dropout_p)
    if torch.compiler.is_compiling():
        return _compiled(list(shape), dropout_p, like.dtype)
    return _draw(list(shape), dropout_p, like.dtype)


def _draw(shape: list[int], dropout_p: float, dtype: torch.dtype) -> Tensor:
    count = torch.Size(shape).numel()
    dropped = min(round(dropout_p * _LEVELS), _LEVELS - 1)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = bits.view(torch.int16)[:count].view(shape) >= dropped - _LEVELS // 2
    return kept.to(dtype).mul_(_LEVELS / (_LEVELS - dropped))


# The compiler's own random numbers on a CPU cost as much as Bernoulli draws, so it calls this one as it is.
_compiled = torch.library.custom_op(
    "rate_kernels::keep_mask",
    _draw,
    mutates_args=(),
    schema="(SymInt[] shape, float dropout_p, ScalarType dtype) -> Tensor",
    tags=(torch.Tag.nondeterministic_seeded,),
)


@_compiled.register_fake
def _(shape: list[int], dropout_p: float, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype)
