"""The gate's operators: what autograd, torch.compile and CUDA graphs see of the kernels.

Plain tensors in eager mode go straight to the launches; torch.compile and tensor subclasses take the registered
operators. Only the arguments are kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from rate_kernels import triton_support
from rate_kernels.gate.parameters import GateParameters

MAX_TOKENS, MAX_SIZE = 64, 512
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def obstacle_of_call(memory: Tensor) -> str | None:
    """Why the kernels do not take a call on a device that they run on, or None when they do."""
    batch, tokens, d = memory.shape
    on_cpu = memory.device.type == "cpu"
    if memory.dtype not in _DTYPES and not (on_cpu and memory.dtype == torch.float64):
        return f"its kernels take float32, bfloat16 or float16, got {_name(memory.dtype)}"
    if on_cpu and torch.bfloat16 in (memory.dtype, _operand(memory)):
        return "Triton's interpreter multiplies bfloat16 wrongly"
    if tokens > MAX_TOKENS:
        return f"its kernels take at most {MAX_TOKENS} memory tokens, got {tokens}"
    if d > MAX_SIZE:
        return f"its kernels take a d of at most {MAX_SIZE}, got {d}"
    if batch * tokens >= 2**31 - 2**10:
        return f"its kernels count rows in 32 bits, got {batch} x {tokens}"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _operand(memory: Tensor) -> torch.dtype:
    """The dtype in which factors enter matrix products: autocast's, where it is on; else the tensors' own."""
    device = memory.device.type
    if memory.dtype == torch.float32 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return memory.dtype


# --- Launches -------------------------------------------------------------------------------------


def _rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _call(
    memory: Tensor, update: Tensor, parameters: list[Tensor], num_heads: int, activation: str, operand: str
) -> Any:
    from rate_kernels.gate.triton.launch import Call

    readable = GateParameters(*(x.contiguous() for x in parameters))
    architecture = triton_support.architecture(memory.device)
    return Call(_rows(memory), _rows(update), readable, num_heads, activation, operand, architecture)


def _forward(
    memory: Tensor,
    update: Tensor,
    parameters: list[Tensor],
    num_heads: int,
    activation: str,
    operand: str,
) -> Tensor:
    from rate_kernels.gate.triton import forward

    out = memory.new_empty(memory.shape)
    if out.numel():
        forward.plan(_call(memory, update, parameters, num_heads, activation, operand), out).run()
    return out


def _backward(
    gradient: Tensor,
    memory: Tensor,
    update: Tensor,
    parameters: list[Tensor],
    num_heads: int,
    activation: str,
    operand: str,
    needed: list[bool],
) -> list[Tensor]:
    """Gradients of memory, update and the eight parameters; empty where none is needed."""
    from rate_kernels.gate.triton import backward_heads, backward_maps

    tensors = (memory, update, *parameters)
    maps = [a or b for a, b in zip(needed[2::2], needed[3::2], strict=True)]  # weight and bias come together
    made = [*needed[:2], *(wanted for wanted in maps for _ in range(2))]
    gradients = [x.new_empty(x.shape if wanted else (0,)) for x, wanted in zip(tensors, made, strict=True)]
    if not memory.numel():
        return [x.zero_() for x in gradients]
    products = [x for x, wanted in zip(backward_maps.PRODUCTS, [*maps, *needed[:2]], strict=True) if wanted]
    call = _call(memory, update, parameters, num_heads, activation, operand)
    gradient = _rows(gradient.resolve_neg())
    work = memory.new_empty((4, *memory.shape), dtype=getattr(torch, operand))
    backward_heads.plan_heads(call, gradient, work).run()
    backward_maps.plan_maps(call, gradient, work, gradients, products).run()
    return [x if wanted else x.new_empty(0) for x, wanted in zip(gradients, needed, strict=True)]


def _backward_fake(gradient, memory, update, parameters, num_heads, activation, operand, needed):  # type: ignore[no-untyped-def]
    tensors = (memory, update, *parameters)
    return [x.new_empty(x.shape if wanted else (0,)) for x, wanted in zip(tensors, needed, strict=True)]


# --- Gradients ------------------------------------------------------------------------------------


class _RetentionGate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        num_heads: int,
        activation: str,
        operand: str,
        memory: Tensor,
        update: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(memory, update, *parameters)
        ctx.call = (num_heads, activation, operand)
        return _forward(memory, update, list(parameters), *ctx.call)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        memory, update, *parameters = ctx.saved_tensors
        needed = list(ctx.needs_input_grad[3:])
        num_heads, activation, operand = ctx.call
        gradients = _backward(gradient, memory, update, parameters, num_heads, activation, operand, needed)
        return (None, None, None, *_asked(gradients, needed))


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, Parameter) and not tensor.is_neg()


def _asked(gradients: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
    return [x if wanted else None for x, wanted in zip(gradients, needed, strict=True)]


def retention_gate(
    memory: Tensor, update: Tensor, parameters: GateParameters, num_heads: int, activation: str
) -> Tensor:
    """See :func:`rate_kernels.retention_gate`; arguments are taken as checked."""
    operand = _name(_operand(memory))
    tensors = (memory, update, *parameters)
    if torch.compiler.is_compiling() or not all(map(_is_plain, tensors)):
        call = (memory, update, list(parameters), num_heads, activation, operand)
        return torch.ops.rate_kernels.triton_retention_gate(*call)
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        result: Tensor = _RetentionGate.apply(num_heads, activation, operand, *tensors)
        return result
    return _forward(memory, update, list(parameters), num_heads, activation, operand)


# --- The operators --------------------------------------------------------------------------------


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    memory, update, parameters, *call = inputs
    ctx.save_for_backward(memory, update, *parameters)
    ctx.call = call
    ctx.needed = [x.requires_grad for x in (memory, update, *parameters)]


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    memory, update, *parameters = ctx.saved_tensors
    run = torch.ops.rate_kernels.triton_retention_gate_backward
    gradients = run(gradient, memory, update, parameters, *ctx.call, ctx.needed)
    d_memory, d_update, *d_parameters = _asked(gradients, ctx.needed)
    return d_memory, d_update, d_parameters, None, None, None


_library = torch.library.Library("rate_kernels", "FRAGMENT")
_tags = (torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout)  # inputs of any strides
_arguments = (
    "Tensor memory, Tensor update, Tensor[] parameters, SymInt num_heads, str activation, str operand"
)
_library.define(f"triton_retention_gate({_arguments}) -> Tensor", tags=_tags)
_library.define(
    f"triton_retention_gate_backward(Tensor gradient, {_arguments}, bool[] needed) -> Tensor[]", tags=_tags
)
for _device in ("CPU", "CUDA"):
    _library.impl("triton_retention_gate", _forward, _device)
    _library.impl("triton_retention_gate_backward", _backward, _device)
torch.library.register_fake(
    "rate_kernels::triton_retention_gate",
    lambda memory, *_: memory.new_empty(memory.shape),
    lib=_library,
)
torch.library.register_fake("rate_kernels::triton_retention_gate_backward", _backward_fake, lib=_library)
torch.library.register_autograd(
    "rate_kernels::triton_retention_gate", _differentiate, setup_context=_save, lib=_library
)
