"""Packing and cache roll through the extension built from csrc/. CPU tensors.

The extension is loaded by the first call that asks for it, never by an import. Plain tensors in eager mode go
straight to it; everything else (torch.compile, fake tensors, subclasses) takes the registered operators
``torch.ops.rate_kernels.pack_segment`` and ``.roll_cache``, which end in the same two functions. The short
way exists because a segment is small: the dispatcher's way through Python costs more than copying it.
"""

from __future__ import annotations

import functools
import importlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from rate_kernels.segment import SegmentLayout

_INTERFACE = 1  # of csrc/bindings.cpp: the argument lists below
_REINSTALL = "pip install --force-reinstall --no-deps --no-cache-dir rate-kernels (or . in a source tree)"

# --- The extension --------------------------------------------------------------------------------


def build_record() -> dict[str, Any] | None:
    """What setup.py recorded about the native build, or None in a source tree that was never installed."""
    try:
        return dict(json.loads((Path(__file__).parents[1] / "_build.json").read_text()))
    except FileNotFoundError:
        return None


@functools.cache
def _load() -> tuple[ModuleType | None, str | None]:
    """The extension, or None and why not."""
    try:
        extension = importlib.import_module("rate_kernels._native")
    except ModuleNotFoundError:
        return None, _why_not_built()
    except ImportError as error:
        return None, f"the extension does not load ({error}): rebuild it with {_REINSTALL}"
    if getattr(extension, "interface", None) != _INTERFACE:
        return None, f"the extension was built from another version: rebuild it with {_REINSTALL}"
    return extension, None


def _why_not_built() -> str:
    record = build_record()
    if record is None:
        return "the extension is not built (this source tree was not installed): run pip install -e . in it"
    if not record["native"]:
        return f"the extension is not built ({record['reason']}): {record['remedy']} and run {_REINSTALL}"
    here = platform.python_version()
    return f"the extension is built for Python {record['python']}, this is {here}: run {_REINSTALL}"


@torch.compiler.assume_constant_result
def _missing() -> str | None:
    return _load()[1]


def obstacle(device: torch.device) -> str | None:
    """Why the extension cannot run on tensors of ``device``, or None when it can."""
    if device.type != "cpu":
        return f"it runs on cpu tensors only, got {device.type}"
    return _missing()


def _extension() -> ModuleType:
    extension, reason = _load()
    if extension is None:
        raise RuntimeError(reason)
    return extension


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, Parameter) and not tensor.is_neg()


def _rows(tensor: Tensor) -> Tensor:
    """A tensor the extension can read by its strides: rows must be contiguous, batch and rows need not be."""
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()


def _view(tensor: Tensor) -> tuple[int, int, int]:
    batch_stride, row_stride, _ = tensor.stride()
    return tensor.data_ptr(), batch_stride, row_stride


# --- pack_segment ---------------------------------------------------------------------------------


def _pack(
    memory: Tensor | None,
    returns: Tensor,
    observations: Tensor,
    actions: Tensor,
    num_memory: int,
    num_write: int,
) -> Tensor:
    returns, observations, actions = _rows(returns), _rows(observations), _rows(actions)
    memory = None if memory is None else _rows(memory)  # named: a copy must outlive the call
    batch, steps, dim = returns.shape
    tokens = 2 * steps + actions.shape[1]
    packed = returns.new_empty((batch, num_memory + tokens + num_write, dim))
    _extension().pack_segment(
        packed.data_ptr(),
        batch,
        num_memory,
        num_write,
        tokens,
        dim,
        packed.element_size(),
        (0, 0, 0) if memory is None else _view(memory),
        _view(returns),
        _view(observations),
        _view(actions),
        torch.get_num_threads(),
    )
    return packed


def _pack_fake(
    memory: Tensor | None,
    returns: Tensor,
    observations: Tensor,
    actions: Tensor,
    num_memory: int,
    num_write: int,
) -> Tensor:
    batch, steps, dim = returns.shape
    return returns.new_empty((batch, num_memory + 2 * steps + actions.shape[1] + num_write, dim))


def _save_sizes(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.num_memory, ctx.num_write = inputs[4], inputs[5]
    ctx.has_memory = inputs[0] is not None


def _pack_gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Memory stands at both ends, so its gradient is their sum; those of the embeddings are strided views."""
    end = gradient.shape[1] - ctx.num_write
    memory = None
    if ctx.has_memory and ctx.needs_input_grad[0]:
        memory = gradient[:, : ctx.num_memory]
        if ctx.num_write:
            memory = memory + gradient[:, end:]  # half types are added in float32 and rounded once
    first = ctx.num_memory
    embeddings = (gradient[:, first + token : end : 3] for token in range(3))
    return memory, *embeddings, None, None


class _PackSegment(torch.autograd.Function):
    # No setup_context: with it torch binds the arguments by inspection, which costs more than packing does.

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        packed = _pack(*inputs)
        _save_sizes(ctx, inputs, packed)
        return packed

    backward = staticmethod(_pack_gradients)


def pack_segment(
    memory: Tensor | None, returns: Tensor, observations: Tensor, actions: Tensor, layout: SegmentLayout
) -> Tensor:
    """As :func:`rate_kernels.recurrence.reference.pack_segment`."""
    inputs = (memory, returns, observations, actions, layout.num_memory, layout.num_write)
    tensors = [returns, observations, actions] if memory is None else [memory, returns, observations, actions]
    if torch.compiler.is_compiling() or not all(map(_is_plain, tensors)):
        return torch.ops.rate_kernels.pack_segment(*inputs)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _PackSegment.apply(*inputs)
    return _pack(*inputs)


# --- roll_cache -----------------------------------------------------------------------------------


def _roll(cache: Sequence[Tensor], hidden: Sequence[Tensor], cache_len: int) -> list[Tensor]:
    if not hidden:
        return []
    cache, hidden = [_rows(layer) for layer in cache], [_rows(layer) for layer in hidden]
    rolled = _roll_fake(cache, hidden, cache_len)
    batch, _, dim = hidden[0].shape
    layers = [
        (*_view(old), old.shape[1], *_view(new), new.shape[1], out.data_ptr())
        for old, new, out in zip(cache, hidden, rolled, strict=True)
    ]
    _extension().roll_cache(layers, batch, cache_len, dim, hidden[0].element_size(), torch.get_num_threads())
    return rolled


def _roll_fake(cache: Sequence[Tensor], hidden: Sequence[Tensor], cache_len: int) -> list[Tensor]:
    return [
        new.new_empty((new.shape[0], min(cache_len, old.shape[1] + new.shape[1]), new.shape[2]))
        for old, new in zip(cache, hidden, strict=True)
    ]


def roll_cache(cache: Sequence[Tensor], hidden: Sequence[Tensor], cache_len: int) -> list[Tensor]:
    """As :func:`rate_kernels.recurrence.reference.roll_cache`."""
    if torch.compiler.is_compiling() or not all(map(_is_plain, (*cache, *hidden))):
        detached = ([layer.detach() for layer in layers] for layers in (cache, hidden))
        return torch.ops.rate_kernels.roll_cache(*detached, cache_len)
    return _roll(cache, hidden, cache_len)


# --- The operators --------------------------------------------------------------------------------

_library = torch.library.Library("rate_kernels", "FRAGMENT")
_tags = (torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout)  # inputs of any strides
_library.define(
    "pack_segment(Tensor? memory, Tensor returns, Tensor observations, Tensor actions, "
    "int num_memory, int num_write) -> Tensor",
    tags=_tags,
)
_library.define("roll_cache(Tensor[] cache, Tensor[] hidden, SymInt cache_len) -> Tensor[]", tags=_tags)
_library.impl("pack_segment", _pack, "CPU")
_library.impl("roll_cache", _roll, "CPU")
torch.library.register_fake("rate_kernels::pack_segment", _pack_fake, lib=_library)
torch.library.register_fake("rate_kernels::roll_cache", _roll_fake, lib=_library)
torch.library.register_autograd(
    "rate_kernels::pack_segment", _pack_gradients, setup_context=_save_sizes, lib=_library
)
