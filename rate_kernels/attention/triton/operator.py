"""The operators around the kernels: shapes, gradients, registration. Triton is imported by the first launch.

Plain tensors in eager mode go straight to the launches; torch.compile and tensor subclasses take the registered
operators, one for each pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rate_kernels.attention.triton import launch
from rate_kernels.recurrence import native as extension
from rate_kernels.segment import SegmentLayout

Inputs = tuple[
    Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None
]
"""query, key, value, weight, content_bias, position_bias, key_start, seed."""


def attention(inputs: Inputs, numbers: list[int], published: bool, scale: float, dropout_p: float) -> Tensor:
    """Runs the kernels on checked arguments; ``numbers`` are the four of a :class:`SegmentLayout`."""
    arguments = (*inputs, numbers, published, scale, dropout_p)
    tensors = [x for x in inputs if x is not None]
    if torch.compiler.is_compiling() or not all(map(extension._is_plain, tensors)):
        result: Tensor = torch.ops.rate_kernels.triton_attention(*arguments)[0]
    elif torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        result = _Attention.apply(*arguments)
    else:
        result = _forward(*arguments)[0]
    return result


# --- The passes -----------------------------------------------------------------------------------


def _problem(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor | None,
    content_bias: Tensor | None,
    position_bias: Tensor | None,
    key_start: Tensor | None,
    seed: Tensor | None,
    numbers: list[int],
    published: bool,
    scale: float,
    dropout_p: float,
) -> launch.Problem:
    num_memory, write_memory, cache_len, read_cache = numbers
    layout = SegmentLayout(num_memory, bool(write_memory), cache_len, bool(read_cache))
    return launch.Problem(
        _rows(query),
        _rows(key),
        _rows(value),
        None if weight is None else weight.contiguous(),
        None if content_bias is None else content_bias.contiguous(),
        None if position_bias is None else position_bias.contiguous(),
        None if key_start is None else key_start.contiguous(),
        seed,
        layout,
        published,
        scale,
        dropout_p,
    )


def _rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    out, statistics = _outputs(arguments[0])
    if out.numel():
        launch.forward(_problem(*arguments), out, statistics).run()
    return out, statistics


def _outputs(query: Tensor) -> tuple[Tensor, Tensor]:
    batch, query_rows, heads, _ = query.shape
    statistics = query.new_empty((batch, heads, query_rows), dtype=launch.torch_accumulator(query.dtype))
    return query.new_empty(query.shape), statistics


def _backward(
    gradient: Tensor, out: Tensor, statistics: Tensor, wanted: list[bool], *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, W, u and v; empty where they are not ``wanted``."""
    problem = _problem(*arguments)
    query, key, weight = problem.query, problem.key, problem.weight
    results = _gradients(query, key, weight, wanted)
    if not query.numel():
        return tuple(x.zero_() for x in results)  # type: ignore[return-value]
    d_query, d_key, d_value, d_weight, d_content_bias, d_position_bias = results
    batch, query_rows, heads, d_head = query.shape
    gradient, delta = _rows(gradient.resolve_neg()), torch.empty_like(statistics)
    for_keys = wanted[1] or wanted[2]
    d_halves = rotated = None
    if weight is not None:
        d_halves = query.new_empty((batch, query_rows, heads, weight.shape[-1]))
        if for_keys and launch.settings("attention_backward_key", problem)["store"]:
            rotated = query.new_empty((batch, heads, query_rows, weight.shape[-1]))
    tiles = -(-query_rows // launch.settings("attention_backward_query", problem)["block_q"])
    sums = statistics.new_empty((batch * tiles, heads, 2, d_head))
    launch.backward_query(
        problem, out, statistics, gradient, delta, _or_scratch(d_query, query), d_halves, sums, rotated
    ).run()
    if for_keys:
        made = _or_scratch(d_key, key), _or_scratch(d_value, key)
        launch.backward_key(problem, statistics, gradient, delta, *made, rotated).run()
    if d_halves is not None and wanted[3]:
        call, parts = launch.backward_weight(problem, d_halves)
        call.run()
        d_weight.copy_(parts.sum(0))
    if weight is not None and (wanted[4] or wanted[5]):
        total = sums.sum(0)
        if wanted[4]:
            d_content_bias.copy_(total[:, 0])
        if wanted[5]:
            d_position_bias.copy_(total[:, 1])
    return results


def _or_scratch(result: Tensor, like: Tensor) -> Tensor:
    """``result``, or memory of the same shape where nobody wants it."""
    return result if result.shape == like.shape else like.new_empty(like.shape)


def _gradients(
    query: Tensor, key: Tensor, weight: Tensor | None, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    bias = None if weight is None else weight.shape[:2]
    shapes = (query.shape, key.shape, key.shape, None if weight is None else weight.shape, bias, bias)
    made = [
        query.new_empty((0,) if shape is None or not wish else shape)
        for shape, wish in zip(shapes, wanted, strict=True)
    ]
    return tuple(made)  # type: ignore[return-value]


# --- Gradients ------------------------------------------------------------------------------------


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output, *inputs[:8])
    ctx.numbers = inputs[8:]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, gradient: Tensor | None, run: Any) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 12
    out, statistics, *inputs = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:6])
    results = run(gradient, out, statistics, wanted, *inputs, *ctx.numbers)
    chosen = (x if wish else None for x, wish in zip(results, wanted, strict=True))
    return (*chosen, None, None, None, None, None, None)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        return _differentiate(ctx, gradient, _backward)


# --- The operators --------------------------------------------------------------------------------

_library = torch.library.Library("rate_kernels", "FRAGMENT")
_tags = (torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout)  # inputs of any strides
_arguments = (
    "Tensor query, Tensor key, Tensor value, Tensor? weight, Tensor? content_bias, Tensor? position_bias, "
    "Tensor? key_start, Tensor? seed, SymInt[] numbers, bool published, float scale, float dropout_p"
)
_library.define(f"triton_attention({_arguments}) -> (Tensor, Tensor)", tags=_tags)
_library.define(
    f"triton_attention_backward(Tensor gradient, Tensor out, Tensor statistics, bool[] wanted, {_arguments}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=_tags,
)
for _device in ("CPU", "CUDA"):  # on a CPU for the interpreter
    _library.impl("triton_attention", _forward, _device)
    _library.impl("triton_attention_backward", _backward, _device)


@torch.library.register_fake("rate_kernels::triton_attention", lib=_library)
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _outputs(query)


@torch.library.register_fake("rate_kernels::triton_attention_backward", lib=_library)
def _(
    gradient: Tensor, out: Tensor, statistics: Tensor, wanted: list[bool], *arguments: Any
) -> tuple[Tensor, ...]:
    return _gradients(arguments[0], arguments[1], arguments[3], wanted)


torch.library.register_autograd(
    "rate_kernels::triton_attention",
    lambda ctx, gradient, _: _differentiate(ctx, gradient, torch.ops.rate_kernels.triton_attention_backward),
    setup_context=_save,
    lib=_library,
)
