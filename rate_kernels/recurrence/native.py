"""Packing and cache roll through the extension built from csrc/. CPU and CUDA tensors.

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
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from rate_kernels.backends import constant_when_compiled
from rate_kernels.segment import SegmentLayout

_INTERFACE = 3  # of csrc/bindings.cpp: the argument lists below
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


@constant_when_compiled
def _missing(device: torch.device) -> str | None:
    extension, reason = _load()
    if extension is None or device.type == "cpu":
        return reason
    if not extension.with_cuda:
        record = build_record()
        why = f" ({record['cuda_reason']})" if record and record["cuda_reason"] else ""
        return f"the extension was built without CUDA{why}: install the CUDA toolkit and run RATE_CUDA=1 {_REINSTALL}"
    if obstacle := _cuda_obstacle(extension):
        return f"the extension's CUDA runtime finds no device: {obstacle}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return _no_code_for(torch.cuda.get_device_capability(device), extension.cuda_architectures)


@functools.cache
def _cuda_obstacle(extension: ModuleType) -> str | None:
    reason: str | None = extension.cuda_obstacle()
    return reason


def _no_code_for(capability: tuple[int, int], compiled: str) -> str | None:
    """Machine code runs on its own major version from its minor version on; PTX on everything newer."""
    for entry in compiled.split(","):
        number, kind = entry.split("-")
        built = divmod(int(number.rstrip("af")), 10)
        if built <= capability and (kind == "virtual" or built[0] == capability[0]):
            return None
    major, minor = capability
    return (
        f"the extension has no code for sm_{major}{minor} (it was built for {compiled}): "
        f"run RATE_CUDA_ARCHITECTURES={major}{minor} {_REINSTALL}"
    )


def obstacle(device: torch.device) -> str | None:
    """Why the extension cannot run on tensors of ``device``, or None when it can."""
    if device.type not in ("cpu", "cuda"):
        return f"it runs on cpu and cuda tensors only, got {device.type}"
    return _missing(device)


def _extension() -> ModuleType:
    extension, reason = _load()
    if extension is None:
        raise RuntimeError(reason)
    return extension


def _launch(function: Callable[..., None], device: torch.device, *arguments: Any) -> None:
    """Calls one of the extension's CUDA functions for tensors of ``device``, on its current stream."""
    with torch.cuda.device(device):
        function(*arguments, torch.cuda.current_stream().cuda_stream)


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
    sizes = (batch, num_memory, num_write, tokens, dim, packed.element_size())
    no_memory = (0, 0, 0)
    views = (
        no_memory if memory is None else _view(memory),
        _view(returns),
        _view(observations),
        _view(actions),
    )
    if packed.is_cuda:
        _launch(_extension().pack_segment_cuda, packed.device, packed.data_ptr(), sizes, views)
    else:
        _extension().pack_segment(packed.data_ptr(), sizes, views, torch.get_num_threads())
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
    """Memory stands at both ends, so its gradient is their sum.

    Those of the embeddings are strided views: nothing is copied, and what a gradient is itself differentiated by. On
    CUDA, where the matrix products that come next would copy each of them, one launch writes all four instead.
    """
    differentiable = torch.is_grad_enabled() or torch.compiler.is_compiling()
    if gradient.is_cuda and not differentiable and _is_plain(gradient):
        return *_unpack(gradient, ctx.num_memory, ctx.num_write), None, None
    end = gradient.shape[1] - ctx.num_write
    memory = None
    if ctx.has_memory and ctx.needs_input_grad[0]:
        memory = gradient[:, : ctx.num_memory]
        if ctx.num_write:
            memory = memory + gradient[:, end:]  # half types are added in float32 and rounded once
    first = ctx.num_memory
    embeddings = (gradient[:, first + token : end : 3] for token in range(3))
    return memory, *embeddings, None, None


_ELEMENTS = {
    torch.float32: 0,
    torch.float64: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
}  # Element in pack_segment.h


def _unpack(
    gradient: Tensor, num_memory: int, num_write: int
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """The gradients of memory, returns, observations and actions, contiguous; CUDA tensors."""
    gradient = _rows(gradient)
    batch, length, dim = gradient.shape
    tokens = length - num_memory - num_write
    memory = gradient.new_empty((batch, num_memory, dim)) if num_memory else None
    embeddings = [gradient.new_empty((batch, (tokens + 2 - kind) // 3, dim)) for kind in range(3)]
    sizes = (batch, num_memory, num_write, tokens, dim, gradient.element_size())
    outputs = (0 if memory is None else memory.data_ptr(), *(x.data_ptr() for x in embeddings))
    element = _ELEMENTS[gradient.dtype]
    _launch(_extension().unpack_segment_cuda, gradient.device, _view(gradient), sizes, element, outputs)
    returns, observations, actions = embeddings
    return memory, returns, observations, actions


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
    sizes = (layers, batch, cache_len, dim, hidden[0].element_size())
    if hidden[0].is_cuda:
        _launch(_extension().roll_cache_cuda, hidden[0].device, *sizes)
    else:
        _extension().roll_cache(*sizes, torch.get_num_threads())
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
for _device in ("CPU", "CUDA"):
    _library.impl("pack_segment", _pack, _device)
    _library.impl("roll_cache", _roll, _device)
torch.library.register_fake("rate_kernels::pack_segment", _pack_fake, lib=_library)
torch.library.register_fake("rate_kernels::roll_cache", _roll_fake, lib=_library)
torch.library.register_autograd(
    "rate_kernels::pack_segment", _pack_gradients, setup_context=_save_sizes, lib=_library
)
