"""Packing and cache roll in PyTorch: the specification. Any device, any dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rate_kernels.segment import SegmentLayout


def pack_segment(
    memory: Tensor | None, returns: Tensor, observations: Tensor, actions: Tensor, layout: SegmentLayout
) -> Tensor:
    """``[ memory | R_0 o_0 a_0 R_1 o_1 a_1 ... | memory, if written ]``; the last action may be missing."""
    complete = actions.shape[1]  # steps that have all three tokens: K or K - 1
    parts = [torch.stack((returns[:, :complete], observations[:, :complete], actions), dim=2).flatten(1, 2)]
    if complete < returns.shape[1]:
        parts += [returns[:, complete:], observations[:, complete:]]
    if memory is not None:
        parts.insert(0, memory)
        if layout.write_memory:
            parts.append(memory)
    return torch.cat(parts, dim=1)


def roll_cache(cache: Sequence[Tensor], hidden: Sequence[Tensor], cache_len: int) -> list[Tensor]:
    """Per layer: the last ``cache_len`` rows of the old cache and the new hidden states together."""
    rolled = []
    for old, new in zip(cache, hidden, strict=True):
        from_new = min(cache_len, new.shape[1])
        from_old = min(cache_len - from_new, old.shape[1])
        kept_old = old.detach()[:, old.shape[1] - from_old :]
        kept_new = new.detach()[:, new.shape[1] - from_new :]
        rolled.append(torch.cat((kept_old, kept_new), dim=1))  # a copy even where one part is empty
    return rolled
