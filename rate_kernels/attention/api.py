"""The public memory-token attention: checks its arguments, chooses a backend, runs it."""

from __future__ import annotations

import torch
from torch import Tensor

from rate_kernels import backends, triton_support
from rate_kernels.attention import native, reference, sdpa, triton
from rate_kernels.attention.position import RelativePosition
from rate_kernels.segment import SegmentLayout

BACKENDS = ("triton", "native", "sdpa", "reference")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def obstacles(device: torch.device) -> dict[str, str | None]:
    """Per backend, in order of preference: why it cannot run on ``device``, or None when it can."""
    found = {
        "triton": triton_support.obstacle(device),
        "native": native.obstacle(device),
        "sdpa": None,
        "reference": None,
    }
    if device.type == "cpu":  # where Triton's interpreter is for tests: last
        found["triton"] = found.pop("triton")
    return found


def memory_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: SegmentLayout,
    position: RelativePosition | None = None,
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    key_start: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Relative-position attention over a segment with memory tokens and a cache.

    ``s_ij = ((q_i + u) . k_j + (q_i + v) . W e(i - j)) * scale``, softmax over the keys that the layout lets row i
    see, dropout on the weights, weighted sum of the values (RATE, arXiv 2306.09459; Transformer-XL, 1901.02860).

    Args:
        query: ``[B, Lq, H, d_head]`` with ``Lq = m + n (+ m)``: read memory, segment tokens, write memory.
        key: ``[B, Lk, H, d_head]`` with ``Lk = cache_len + Lq``: the cache first.
        value: as ``key``.
        layout: who stands where and sees whom.
        position: parameters of the relative-position term; None leaves it out.
        scale: factor of all scores; ``1 / sqrt(d_head)`` by default.
        dropout_p: probability of dropping an attention weight, 0 <= p < 1.
        key_start: int ``[B]``; segment tokens before it are padding and seen by nobody (left-padded batches).
        backend: ``"triton"`` (CUDA; float32, bfloat16 or float16, a d_head of at most 256 and a d_pos of at most 512),
            ``"native"`` (float32 on a CPU, no dropout), ``"sdpa"`` or ``"reference"``; the first that can run this
            call by default.

    All tensors share one floating dtype (float32, bfloat16, float16, float64) and one device; any strides.
    A row that sees nothing gives zeros and zero gradients.

    Returns:
        ``[B, Lq, H, d_head]``.

    Raises:
        ValueError: an argument's shape or value does not fit.
        TypeError: an argument's dtype or device does not fit.
        BackendUnavailable: the named backend cannot run here.
    """
    _check(query, key, value, layout, position, dropout_p, key_start)
    found = obstacles(query.device)
    # A backend that runs here may still not take this call.
    if found.get("triton", "") is None:
        found["triton"] = triton.obstacle_of_call(query, position)
    if found.get("native", "") is None:
        found["native"] = native.obstacle_of_call(query, dropout_p)
    chosen = backends.choose("memory_attention", found, backend)
    modules = {"triton": triton, "native": native, "sdpa": sdpa, "reference": reference}
    run = modules[chosen].memory_attention
    if scale is None:
        scale = query.shape[-1] ** -0.5
    with torch.autocast(query.device.type, enabled=False):  # in the arguments' own precision
        return run(query, key, value, layout, position, scale, dropout_p, key_start)


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: SegmentLayout,
    position: RelativePosition | None,
    dropout_p: float,
    key_start: Tensor | None,
) -> None:
    if query.dim() != 4:
        raise ValueError(f"query must be [B, Lq, H, d_head], got {list(query.shape)}")
    batch, lq, heads, d_head = query.shape
    layout.segment_tokens(lq)
    expected = (batch, layout.cache_len + lq, heads, d_head)
    tensors = {"query": query, "key": key, "value": value}
    for name in ("key", "value"):
        if tensors[name].shape != expected:
            raise ValueError(
                f"{name} must be {list(expected)} (cache_len {layout.cache_len} + {lq} query rows), "
                f"got {list(tensors[name].shape)}"
            )
    if position is not None:
        if position.weight.shape[:2] != (heads, d_head):
            raise ValueError(
                f"position.weight must be [{heads}, {d_head}, d_pos], got {list(position.weight.shape)}"
            )
        tensors |= {
            "position.weight": position.weight,
            "position.content_bias": position.content_bias,
            "position.position_bias": position.position_bias,
        }
    if query.dtype not in _DTYPES:
        raise TypeError(f"query must be float32, bfloat16, float16 or float64, got {query.dtype}")
    for name, tensor in tensors.items():
        if tensor.dtype != query.dtype:
            raise TypeError(f"{name} must have query's dtype {query.dtype}, got {tensor.dtype}")
        if tensor.device != query.device:
            raise TypeError(f"{name} must be on query's device {query.device}, got {tensor.device}")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p must be in [0, 1), got {dropout_p}")
    if key_start is not None:
        if key_start.shape != (batch,):
            raise ValueError(f"key_start must be [{batch}], got {list(key_start.shape)}")
        if key_start.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"key_start must be int64 or int32, got {key_start.dtype}")
        if key_start.device != query.device:
            raise TypeError(f"key_start must be on query's device {query.device}, got {key_start.device}")
