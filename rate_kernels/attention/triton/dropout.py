"""The kernels' dropout mask, in PyTorch: what ``tile.keep`` draws, bit by bit."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 7
LEVELS = 1 << 16
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def threshold(dropout_p: float) -> int:
    """Of 2^16 equally likely values, how many drop a weight; the probability is rounded to this."""
    return min(round(dropout_p * LEVELS), LEVELS - 1)


def keep_mask(seed: Tensor, batch: int, heads: int, query_rows: int, key_rows: int, dropped: int) -> Tensor:
    """Which attention weights are kept.

    Args:
        seed: int64, one element.
        batch, heads, query_rows, key_rows: sizes.
        dropped: see :func:`threshold`.

    Returns:
        Boolean ``[B, H, Lq, Lk]``.
    """
    eighths = -(-key_rows // 8)
    counter = [
        torch.arange(eighths, device=seed.device)[None, None, :],
        torch.arange(query_rows, device=seed.device)[None, :, None],
        torch.arange(batch * heads, device=seed.device)[:, None, None],
        torch.zeros(1, 1, 1, dtype=torch.int64, device=seed.device),
    ]
    words = _philox(counter, seed.reshape(()))
    words = [word.expand(batch * heads, query_rows, eighths) for word in words]
    bits = torch.stack([half for word in words for half in (word & 0xFFFF, word >> 16)], dim=-1)
    return (bits.flatten(2)[:, :, :key_rows] >= dropped).view(batch, heads, query_rows, key_rows)


def _philox(counter: list[Tensor], seed: Tensor) -> list[Tensor]:
    """Philox 4x32 (Salmon et al. 2011) on int64 tensors that hold 32-bit words."""
    a, b, c, d = counter
    low, high = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(ROUNDS):
        (product_a, remainder_a), (product_c, remainder_c) = (
            _multiply(word, factor) for word, factor in zip((a, c), _MULTIPLIERS, strict=True)
        )
        a, b, c, d = product_c ^ b ^ low, remainder_c, product_a ^ d ^ high, remainder_a
        low, high = (low + _INCREMENTS[0]) & _WORD, (high + _INCREMENTS[1]) & _WORD
    return [a, b, c, d]


def _multiply(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a product, by halves, as 64 signed bits do not hold it."""
    low = word * (factor & 0xFFFF)
    high = word * (factor >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)
