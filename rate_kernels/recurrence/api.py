"""The public packing and cache roll: check their arguments, choose a backend, run it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rate_kernels import backends
from rate_kernels.recurrence import native, reference
from rate_kernels.segment import SegmentLayout

BACKENDS = ("native", "reference")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_MODULES = {"native": native, "reference": reference}


def obstacles(device: torch.device) -> dict[str, str | None]:
    """Per backend, in order of preference: why it cannot run on ``device``, or None when it can."""
    return {"native": native.obstacle(device), "reference": None}


def pack_segment(
    memory: Tensor | None,
    returns: Tensor,
    observations: Tensor,
    actions: Tensor,
    layout: SegmentLayout,
    *,
    backend: str | None = None,
) -> Tensor:
    """The embeddings of K steps as one sequence, with the memory tokens around them.

    ``[ memory | R_0 o_0 a_0 R_1 o_1 a_1 ... | memory, if layout.write_memory ]``.
    Differentiable; the gradient of the memory is the sum over its two places.

    Args:
        memory: ``[B, m, d]`` with ``m = layout.num_memory``; None when m is 0.
        returns: embedded returns-to-go, ``[B, K, d]`` with K >= 1.
        observations: embedded observations, ``[B, K, d]``.
        actions: embedded actions, ``[B, K, d]``, or ``[B, K - 1, d]`` while the last one is not yet taken.
        layout: num_memory and write_memory are read.
        backend: ``"native"`` or ``"reference"``; the first that can run by default.

    All tensors share one floating dtype (float32, bfloat16, float16, float64) and one device; any strides,
    expanded ones included.

    Returns:
        ``[B, m + n (+ m), d]`` with n = 3K, or 3K - 1 without the last action; contiguous, a copy.

    Raises:
        ValueError: an argument's shape does not fit.
        TypeError: an argument's dtype or device does not fit.
        BackendUnavailable: the named backend cannot run here.
    """
    if returns.dim() != 3 or returns.shape[1] < 1:
        raise ValueError(f"returns must be [B, K, d] with K at least 1, got {list(returns.shape)}")
    batch, steps, dim = returns.shape
    if observations.shape != returns.shape:
        raise ValueError(f"observations must be {list(returns.shape)}, got {list(observations.shape)}")
    if actions.shape != returns.shape and actions.shape != (batch, steps - 1, dim):
        raise ValueError(
            f"actions must be {list(returns.shape)} or one step shorter, got {list(actions.shape)}"
        )
    _check_dtype("returns", returns)
    _check_like("observations", observations, "returns", returns)
    _check_like("actions", actions, "returns", returns)
    if memory is None:
        if layout.num_memory:
            raise ValueError(f"memory must be {[batch, layout.num_memory, dim]} for {layout}, got None")
    else:
        if memory.shape != (batch, layout.num_memory, dim):
            raise ValueError(
                f"memory must be {[batch, layout.num_memory, dim]} for {layout}, got {list(memory.shape)}"
            )
        _check_like("memory", memory, "returns", returns)
    chosen = backends.choose("pack_segment", obstacles(returns.device), backend)
    return _MODULES[chosen].pack_segment(memory, returns, observations, actions, layout)


def roll_cache(
    cache: Sequence[Tensor], hidden: Sequence[Tensor], cache_len: int, *, backend: str | None = None
) -> list[Tensor]:
    """The next cache of every layer: the last ``cache_len`` rows of old cache and new hidden states together.

    Args:
        cache: per layer ``[B, c, d]``; c may be 0 and may differ between layers.
        hidden: per layer ``[B, Lq, d]``, the segment's hidden states, memory tokens included.
        cache_len: rows to keep, >= 0.
        backend: ``"native"`` or ``"reference"``; the first that can run by default.

    All tensors share one floating dtype (float32, bfloat16, float16, float64), one device, B and d;
    any strides.

    Returns:
        Per layer ``[B, min(cache_len, c + Lq), d]``: contiguous copies without gradient.

    Raises:
        ValueError: an argument's shape or value does not fit, or the lists differ in length.
        TypeError: an argument's dtype or device does not fit.
        BackendUnavailable: the named backend cannot run here.
    """
    if cache_len < 0:
        raise ValueError(f"cache_len must be at least 0, got {cache_len}")
    if len(cache) != len(hidden):
        raise ValueError(
            f"cache must have one tensor per layer as hidden does ({len(hidden)}), got {len(cache)}"
        )
    if not hidden:
        return []
    first = hidden[0]
    if first.dim() != 3:
        raise ValueError(f"hidden[0] must be [B, Lq, d], got {list(first.shape)}")
    _check_dtype("hidden[0]", first)
    batch, _, dim = first.shape
    for name, tensors in (("cache", cache), ("hidden", hidden)):
        for layer, tensor in enumerate(tensors):
            shape = tensor.shape
            if len(shape) != 3 or shape[0] != batch or shape[2] != dim:
                raise ValueError(f"{name}[{layer}] must be [{batch}, any, {dim}], got {list(shape)}")
            if tensor.dtype != first.dtype or tensor.device != first.device:
                _check_like(f"{name}[{layer}]", tensor, "hidden[0]", first)
    chosen = backends.choose("roll_cache", obstacles(first.device), backend)
    return _MODULES[chosen].roll_cache(cache, hidden, cache_len)


def _check_dtype(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in _DTYPES:
        raise TypeError(f"{name} must be float32, bfloat16, float16 or float64, got {tensor.dtype}")


def _check_like(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.dtype != other.dtype:
        raise TypeError(f"{name} must have the dtype of {other_name}, {other.dtype}, got {tensor.dtype}")
    if tensor.device != other.device:
        raise TypeError(f"{name} must be on the device of {other_name}, {other.device}, got {tensor.device}")
