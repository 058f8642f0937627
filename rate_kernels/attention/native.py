"""Attention through the extension built from csrc/: float32 CPU tensors, forward and backward.

The position term is computed by distance, as the equations state it, ``(q_i + v) . r(i - j)`` with ``r(t) = W e(t)``:
r is one small matrix product per call, and the kernel reads a band of it per block of scores, so that nothing is
rotated or shifted in memory. Only two numbers per row are kept for the backward pass.

Which row sees which key comes from :class:`SegmentLayout` and goes to the kernel as numbers per row. Plain tensors in
eager mode go straight to the extension; torch.compile and tensor subclasses take the registered operators.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from rate_kernels.attention.position import RelativePosition, sinusoids
from rate_kernels.backends import constant_when_compiled
from rate_kernels.recurrence import native as extension
from rate_kernels.segment import SegmentLayout

MAX_HEAD = 256


def obstacle(device: torch.device) -> str | None:
    """Why the extension cannot run on tensors of ``device``, or None when it can."""
    if device.type != "cpu":
        return f"it runs on cpu tensors only, got {device.type}"
    return extension.obstacle(device) or _missing()


@constant_when_compiled
def _missing() -> str | None:
    if hasattr(extension._extension(), "attention_forward"):
        return None
    return "the extension was built by another version, or by a compiler other than GCC and Clang: rebuild it"


def obstacle_of_call(query: Tensor, dropout_p: float) -> str | None:
    """Why the kernel does not take a call on a device that it runs on, or None when it does."""
    if query.dtype != torch.float32:
        return f"it takes float32 only, got {str(query.dtype).removeprefix('torch.')}"
    if dropout_p > 0:
        return f"it has no dropout, got dropout_p {dropout_p}"
    if query.shape[-1] > MAX_HEAD:
        return f"it takes a d_head of at most {MAX_HEAD}, got {query.shape[-1]}"
    return None


# --- The layout as numbers ------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _visible(layout: SegmentLayout, query_rows: int) -> tuple[Tensor, Tensor, int]:
    """First key and end of the keys that each row sees, int32, and the columns of the table that they need."""
    n = layout.segment_tokens(query_rows)
    with torch.inference_mode(False):
        mask = layout.mask(n, "cpu")
        columns = torch.arange(1, mask.shape[1] + 1)
        stop = (mask * columns).amax(1) if mask.numel() else torch.zeros(query_rows, dtype=torch.int64)
        first = stop - mask.sum(1)
        rows = torch.arange(query_rows)
        seen = (columns > first[:, None]) & (columns <= stop[:, None])
        if not torch.equal(seen, mask):
            raise AssertionError(f"{layout}: a row sees keys that are not next to each other")
        needed = (stop + query_rows - 1 - rows).max().item() if query_rows else 0
        return first.to(torch.int32), stop.to(torch.int32), max(1, int(needed))


def _table_columns(layout: SegmentLayout, query_rows: int) -> int:
    """Columns of the table that the layout needs; all distances where the lengths may be symbols."""
    if torch.compiler.is_compiling():
        return layout.cache_len + 2 * query_rows - 1
    return _visible(layout, query_rows)[2]


@functools.lru_cache(maxsize=64)
def _distances(key_rows: int, columns: int, d_pos: int) -> Tensor:
    """``e(t) [columns, d_pos]`` for the distances ``key_rows - 1, key_rows - 2, ...``."""
    with torch.inference_mode(False), torch.no_grad():
        return _make_distances(key_rows, columns, d_pos)


def _make_distances(key_rows: int, columns: int, d_pos: int) -> Tensor:
    positions = torch.arange(key_rows - 1, key_rows - 1 - columns, -1)
    return torch.cat(sinusoids(positions, d_pos, torch.float32), dim=-1)


def _hidden(layout: SegmentLayout, query_rows: int, key_start: Tensor) -> Tensor:
    """Begin and end of the keys that nobody sees, int32 ``[B, 2]``."""
    padding = layout.key_padding(layout.segment_tokens(query_rows), key_start)
    count = padding.sum(1)
    begin = padding.int().argmax(1) if padding.shape[1] else count
    return torch.stack([begin, begin + count], dim=1).to(torch.int32)


# --- Calls of the extension -----------------------------------------------------------------------


def _layout(numbers: list[int]) -> SegmentLayout:
    num_memory, write_memory, cache_len, read_cache = numbers
    return SegmentLayout(num_memory, bool(write_memory), cache_len, bool(read_cache))


def _rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _view(tensor: Tensor) -> tuple[int, int, int, int]:
    batch, row, head, _ = tensor.stride()
    return tensor.data_ptr(), batch, row, head


class _Call:
    """The arguments that both passes share; holds whatever had to be copied until the call is over."""

    def __init__(
        self, tensors: tuple[Tensor | None, ...], numbers: list[int], published: bool, scale: float
    ) -> None:
        query, key, value, content_bias, position_bias, table, hidden = tensors
        assert query is not None and key is not None and value is not None
        batch, query_rows, heads, d_head = query.shape
        first, stop, _ = _visible(_layout(numbers), query_rows)
        self.inputs = [_rows(x) for x in (query, key, value)]
        others = [None if x is None else x.contiguous() for x in (content_bias, position_bias, table)]
        self.others = [*others, first, stop, hidden]
        columns = 0 if table is None else table.shape[-1]
        self.arguments = (
            (batch, heads, query_rows, key.shape[1], d_head, columns),
            published,
            scale,
            [_view(x) for x in self.inputs],
            [0 if x is None else x.data_ptr() for x in self.others],
        )


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    content_bias: Tensor | None,
    position_bias: Tensor | None,
    table: Tensor | None,
    hidden: Tensor | None,
    numbers: list[int],
    published: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    batch, rows, heads, d_head = query.shape
    out, statistics = query.new_empty((batch, rows, heads, d_head)), query.new_empty((batch, heads, rows, 2))
    call = _Call((query, key, value, content_bias, position_bias, table, hidden), numbers, published, scale)
    module = extension._extension()
    module.attention_forward(*call.arguments, out.data_ptr(), statistics.data_ptr(), torch.get_num_threads())
    return out, statistics


def _forward_fake(query, key, value, content_bias, position_bias, table, hidden, numbers, published, scale):  # type: ignore[no-untyped-def]
    batch, rows, heads, d_head = query.shape
    return query.new_empty((batch, rows, heads, d_head)), query.new_empty((batch, heads, rows, 2))


def _backward(
    gradient: Tensor,
    statistics: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    content_bias: Tensor | None,
    position_bias: Tensor | None,
    table: Tensor | None,
    hidden: Tensor | None,
    numbers: list[int],
    published: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, both biases and the table; the last three empty where there are none."""
    call = _Call((query, key, value, content_bias, position_bias, table, hidden), numbers, published, scale)
    gradient = _rows(gradient)
    results = _gradients(query, key, content_bias, table)
    module = extension._extension()
    module.attention_backward(
        *call.arguments,
        _view(gradient),
        statistics.data_ptr(),
        [x.data_ptr() for x in results],
        torch.get_num_threads(),
    )
    return results


def _gradients(
    query: Tensor, key: Tensor, bias: Tensor | None, table: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def shared(x: Tensor | None) -> Tensor:
        return query.new_empty((0,) if x is None else x.shape)

    d_key, d_value = query.new_empty(key.shape), query.new_empty(key.shape)
    return query.new_empty(query.shape), d_key, d_value, shared(bias), shared(bias), shared(table)


def _backward_fake(gradient, statistics, query, key, value, content_bias, position_bias, table, *_):  # type: ignore[no-untyped-def]
    return _gradients(query, key, content_bias, table)


# --- Gradients ------------------------------------------------------------------------------------


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1], *inputs[:7])
    ctx.numbers, ctx.published, ctx.scale = inputs[7:]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, gradient: Tensor | None, run: Any) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 10
    saved = ctx.saved_tensors
    results = run(gradient, *saved, ctx.numbers, ctx.published, ctx.scale)
    shared = results[3:] if saved[6] is not None else (None, None, None)
    return (*results[:3], *shared, None, None, None, None)


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
    """See :func:`rate_kernels.memory_attention`; arguments are taken as checked, and dropout_p is 0."""
    query_rows, key_rows = query.shape[1], key.shape[1]
    hidden = None if key_start is None else _hidden(layout, query_rows, key_start)
    numbers = [layout.num_memory, int(layout.write_memory), layout.cache_len, int(layout.read_cache)]
    biases: tuple[Tensor | None, Tensor | None] = (None, None)
    table, published = None, False
    if position is not None:
        heads, d_head, d_pos = position.weight.shape
        columns = _table_columns(layout, query_rows)
        make = _make_distances if torch.compiler.is_compiling() else _distances
        distances = make(key_rows, columns, d_pos)
        table = torch.mm(position.weight.reshape(heads * d_head, d_pos), distances.t())
        table = table.view(heads, d_head, columns)
        biases = (position.content_bias, position.position_bias)
        published = position.shift == "transformer_xl"
    inputs = (query, key, value, *biases, table, hidden, numbers, published, scale)
    tensors = [x for x in inputs[:7] if isinstance(x, Tensor)]
    if torch.compiler.is_compiling() or not all(map(extension._is_plain, tensors)):
        return torch.ops.rate_kernels.native_attention(*inputs)[0]
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        result: Tensor = _Attention.apply(*inputs)
        return result
    return _forward(*inputs)[0]


# --- The operators --------------------------------------------------------------------------------

_library = torch.library.Library("rate_kernels", "FRAGMENT")
_tags = (torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout)  # inputs of any strides
_arguments = (
    "Tensor query, Tensor key, Tensor value, Tensor? content_bias, Tensor? position_bias, Tensor? table, "
    "Tensor? hidden, SymInt[] numbers, bool published, float scale"
)
_library.define(f"native_attention({_arguments}) -> (Tensor, Tensor)", tags=_tags)
_library.define(
    f"native_attention_backward(Tensor gradient, Tensor statistics, {_arguments}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=_tags,
)
_library.impl("native_attention", _forward, "CPU")
_library.impl("native_attention_backward", _backward, "CPU")
torch.library.register_fake("rate_kernels::native_attention", _forward_fake, lib=_library)
torch.library.register_fake("rate_kernels::native_attention_backward", _backward_fake, lib=_library)
torch.library.register_autograd(
    "rate_kernels::native_attention",
    lambda ctx, gradient, _: _differentiate(ctx, gradient, torch.ops.rate_kernels.native_attention_backward),
    setup_context=_save,
    lib=_library,
)
