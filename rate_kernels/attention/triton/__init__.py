"""Memory-token attention as fused Triton kernels: forward, and a backward pass without atomics.

The separable form of ../position.py, with every rotated query made inside the kernels (docs/kernels.md draws them).

    forward.py           one launch                                     tile.py        what the kernels share
    backward_query.py    dQ, and what dW, du, dv are sums of            visibility.py  who sees whom, loop ranges
    backward_key.py      dK, dV                                         dropout.py     the dropout mask in PyTorch
    backward_weight.py   dW                                             launch.py      arguments, grids, angles
    configurations.json  tiles, warps, stages: data                     operator.py    autograd and registration
"""

from __future__ import annotations

import torch
from torch import Tensor

from rate_kernels import triton_support
from rate_kernels.attention.position import RelativePosition
from rate_kernels.attention.triton import operator
from rate_kernels.segment import SegmentLayout

MAX_HEAD = 256
MAX_POSITION = 512
MAX_WIDTH_IN_LITTLE_SHARED_MEMORY = 128
"""Of d_head and d_pos, for float32 on a workstation's card."""


def obstacle_of_call(query: Tensor, position: RelativePosition | None) -> str | None:
    """Why the kernels do not take a call on a device that they run on, or None when they do."""
    if query.dtype == torch.float64 and not triton_support.interpreted():
        return "it takes float32, bfloat16 and float16, got float64"
    if query.dtype == torch.bfloat16 and triton_support.interpreted():
        return "Triton's interpreter multiplies wrongly in bfloat16"
    if query.shape[-1] > MAX_HEAD:
        return f"it takes a d_head of at most {MAX_HEAD}, got {query.shape[-1]}"
    if position is not None and position.weight.shape[-1] > MAX_POSITION:
        return f"it takes a d_pos of at most {MAX_POSITION}, got {position.weight.shape[-1]}"
    if query.dtype == torch.float32 and triton_support.little_shared_memory(query.device):
        widest = max(query.shape[-1], 0 if position is None else position.weight.shape[-1])
        if widest > MAX_WIDTH_IN_LITTLE_SHARED_MEMORY:
            limit = f"a d_head and a d_pos of at most {MAX_WIDTH_IN_LITTLE_SHARED_MEMORY}"
            return f"in float32 it takes {limit} in this device's shared memory, got {widest}"
    return None


def memory_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: SegmentLayout,
    position: RelativePosition | None,
    scale: float,
    dropout_p: float,
    key_start: Tensor | None,
) -> Tensor:
    """See :func:`rate_kernels.memory_attention`; arguments are taken as checked.

    The dropout mask is a function of one 63-bit seed, drawn on the device from PyTorch's default generator.
    """
    seed = None
    if dropout_p > 0:
        seed = torch.randint(2**63 - 1, (1,), dtype=torch.int64, device=query.device)
    parameters: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)
    published = False
    if position is not None:
        parameters = (position.weight, position.content_bias, position.position_bias)
        published = position.shift == "transformer_xl"
    numbers = [layout.num_memory, int(layout.write_memory), layout.cache_len, int(layout.read_cache)]
    inputs = (query, key, value, *parameters, key_start, seed)
    return operator.attention(inputs, numbers, published, scale, dropout_p)
