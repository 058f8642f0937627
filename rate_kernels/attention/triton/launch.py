"""Launches of the attention kernels: their arguments, grids and configurations."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rate_kernels import configurations, triton_support
from rate_kernels.attention.position import sinusoids
from rate_kernels.attention.triton.dropout import threshold
from rate_kernels.segment import SegmentLayout
from rate_kernels.triton_support import Launch

Settings = dict[str, Any]

TABLE = Path(__file__).with_name("configurations.json")


class Problem(NamedTuple):
    """The inputs that every pass shares; see :func:`rate_kernels.memory_attention`.

    ``query``, ``key`` and ``value`` have a contiguous last dimension, the parameters are contiguous; ``seed`` is int64
    with one element where there is dropout.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    weight: Tensor | None
    content_bias: Tensor | None
    position_bias: Tensor | None
    key_start: Tensor | None
    seed: Tensor | None
    layout: SegmentLayout
    published: bool
    scale: float
    dropout_p: float
    chosen: Mapping[str, Settings] | None = None
    """Settings by kernel, instead of the table's; for tuning and tests."""


@functools.cache
def kernels() -> dict[str, Any]:
    """The functions under ``triton.jit``, by name."""
    from rate_kernels.attention.triton import backward_key, backward_query, backward_weight, forward

    return {
        "attention_forward": forward.attention_forward,
        "attention_backward_query": backward_query.attention_backward_query,
        "attention_backward_key": backward_key.attention_backward_key,
        "attention_backward_weight": backward_weight.attention_backward_weight,
    }


INTERPRETED: dict[str, Settings] = {
    kernel: {"block_q": 128, "block_k": 64, "chunk": 32, "store": False, "num_warps": 4, "num_stages": 1}
    for kernel in ("attention_forward", "attention_backward_query", "attention_backward_key")
} | {"attention_backward_weight": {"block_r": 128, "block_c": 64, "num_warps": 4, "num_stages": 1}}
"""The interpreter has no shared memory to fit, and is the faster the fewer the tiles."""


def settings(kernel: str, problem: Problem) -> Settings:
    """This problem's row of the table."""
    if problem.chosen is not None:
        return problem.chosen[kernel]
    if triton_support.interpreted():
        return INTERPRETED[kernel]
    query, key, weight = problem.query, problem.key, problem.weight
    dtype = str(query.dtype).removeprefix("torch.")
    if query.dtype == torch.float32 and triton_support.float32_precision() == "tf32":
        dtype = "tf32"
    sizes = {
        "d_head": query.shape[-1],
        "d_pos": 0 if weight is None else weight.shape[-1],
        "length": key.shape[1],
    }
    return configurations.find(TABLE, kernel, triton_support.architecture(query.device), dtype, sizes)


def forward(problem: Problem, out: Tensor, statistics: Tensor) -> Launch:
    """Writes ``out [B, Lq, H, d_head]`` and ``statistics [B, H, Lq]``, the base-2 logarithm of every row's total."""
    return _launch("attention_forward", problem, {"out": out, "statistics": statistics})


def backward_query(
    problem: Problem,
    out: Tensor,
    statistics: Tensor,
    gradient: Tensor,
    delta: Tensor,
    d_query: Tensor,
    d_halves: Tensor | None,
    sums: Tensor,
    rotated: Tensor | None,
) -> Launch:
    """Writes ``delta``, ``d_query``, ``d_halves``, ``sums`` and, where it is not None, ``rotated``."""
    tensors = {"out": out, "statistics": statistics, "delta": delta, "d_query": d_query, "d_halves": d_halves}
    tensors |= {"sums": sums, "rotated": rotated}
    return _launch("attention_backward_query", problem, tensors, gradient, store=rotated is not None)


def backward_key(
    problem: Problem,
    statistics: Tensor,
    gradient: Tensor,
    delta: Tensor,
    d_key: Tensor,
    d_value: Tensor,
    rotated: Tensor | None,
) -> Launch:
    """Writes ``d_key`` and ``d_value``, of the keys' shape and contiguous."""
    tensors = {
        "statistics": statistics,
        "delta": delta,
        "d_key": d_key,
        "d_value": d_value,
        "rotated": rotated,
    }
    return _launch("attention_backward_key", problem, tensors, gradient, store=rotated is not None)


def _launch(
    kernel: str,
    problem: Problem,
    tensors: dict[str, Tensor | None],
    gradient: Tensor | None = None,
    store: bool = False,
) -> Launch:
    query, key, value, weight = problem.query, problem.key, problem.value, problem.weight
    d_pos = 0 if weight is None else weight.shape[-1]
    arguments: dict[str, Any] = {
        "query": query,
        "key": key,
        "value": value,
        "weight": weight,
        "content_bias": problem.content_bias,
        "position_bias": problem.position_bias,
        "phi": None,
        "angles": None,
        "key_start": problem.key_start,
        "seed": problem.seed,
        **tensors,
    }
    if weight is not None:
        arguments["phi"], arguments["angles"] = tables(key.shape[1], d_pos, query.dtype, query.device)
    for name, tensor in arguments.items():
        if tensor is None:  # a kernel takes an address for what is absent too, and does not read it
            arguments[name] = query
    strides: tuple[tuple[int, ...], ...] = (query.stride(), key.stride(), value.stride())
    if gradient is not None:
        arguments["gradient"] = gradient
        strides = (*strides, gradient.stride())
    grid, numbers, num_warps, num_stages = _numbers(
        kernel,
        tuple(settings(kernel, problem).items()),
        query.dtype,
        triton_support.float32_precision(),
        query.shape,
        key.shape[1],
        strides,
        d_pos,
        problem.layout,
        problem.published,
        problem.key_start is not None,
        problem.scale,
        problem.dropout_p,
        store,
    )
    arguments |= numbers
    return Launch(kernels()[kernel], grid, arguments, num_warps, num_stages)


@functools.lru_cache(maxsize=4096)
def _numbers(
    kernel: str,
    chosen: tuple[tuple[str, Any], ...],
    dtype: torch.dtype,
    precision: str,
    shape: torch.Size,
    key_rows: int,
    strides: tuple[tuple[int, ...], ...],
    d_pos: int,
    layout: SegmentLayout,
    published: bool,
    has_padding: bool,
    scale: float,
    dropout_p: float,
    store: bool,
) -> tuple[tuple[int], dict[str, Any], int, int]:
    """Grid, arguments that are no tensors, warps and stages: what repeats from call to call."""
    batch, query_rows, heads, d_head = shape
    fields = dict(chosen) | {"store": store}
    num_warps, num_stages = fields.pop("num_warps"), fields.pop("num_stages")
    numbers: dict[str, Any] = {
        "heads": heads,
        "num_memory": layout.num_memory,
        "segment_end": query_rows - layout.num_write,
        "cache_len": layout.cache_len,
        "query_rows": query_rows,
        "key_rows": key_rows,
        "threshold": threshold(dropout_p),
        "static": _static(
            dtype,
            precision,
            d_head,
            d_pos,
            scale=scale,
            read_cache=layout.read_cache,
            position=d_pos > 0,
            published=published and layout.num_memory > 0,
            padded=has_padding,
            dropout=dropout_p > 0,
            **fields,
        ),
    }
    for name, (along_batch, along_rows, along_heads, _) in zip(
        ("query", "key", "value", "gradient"), strides, strict=False
    ):
        numbers |= {f"{name}_batch": along_batch, f"{name}_row": along_rows, f"{name}_head": along_heads}
    lines, block = (key_rows, "block_k") if kernel == "attention_backward_key" else (query_rows, "block_q")
    return (-(-lines // fields[block]) * batch * heads,), numbers, num_warps, num_stages


def backward_weight(problem: Problem, d_halves: Tensor) -> tuple[Launch, Tensor]:
    """Writes the parts ``[parts, H, d_head, d_pos]`` that sum to the gradient of W; returns them too."""
    query, weight = problem.query, problem.weight
    assert weight is not None and problem.position_bias is not None
    batch, query_rows, heads, d_head = query.shape
    d_pos = weight.shape[-1]
    chosen = dict(settings("attention_backward_weight", problem))
    options = [chosen.pop(name) for name in ("num_warps", "num_stages")]
    block, columns = int(chosen["block_r"]), -(-d_pos // int(chosen["block_c"]))
    part_rows, parts = _parts(batch * query_rows, block, heads * columns)
    out = query.new_empty((parts, heads, d_head, d_pos), dtype=torch_accumulator(query.dtype))
    arguments = {
        "query": query,
        "position_bias": problem.position_bias,
        "d_halves": d_halves,
        "parts": out,
        "query_batch": query.stride(0),
        "query_row": query.stride(1),
        "query_head": query.stride(2),
        "heads": heads,
        "batches": batch,
        "query_rows": query_rows,
        "part_rows": part_rows,
        "static": _static(query.dtype, triton_support.float32_precision(), d_head, d_pos, **chosen),
    }
    kernel = kernels()["attention_backward_weight"]
    return Launch(kernel, (heads, columns, parts), arguments, *options), out


PROGRAMS = 264
"""Programs that the third kernel aims at: two for each multiprocessor of an H200."""


def _parts(rows: int, block: int, others: int) -> tuple[int, int]:
    """Rows per part, a multiple of ``block``, and the number of parts. A function of sizes alone: results repeat."""
    blocks = -(-rows // block)
    parts = max(1, min(blocks // 4, PROGRAMS // others))
    per_part = -(-blocks // parts)
    return per_part * block, -(-blocks // per_part)


@dataclasses.dataclass(frozen=True)
class Static:
    """What a kernel is compiled for; every field is a ``tl.constexpr``. A kernel reads the fields that concern it."""

    scale: Any = None
    read_cache: Any = None
    position: Any = None
    published: Any = None
    padded: Any = None
    dropout: Any = None
    store: Any = None
    d_head: Any = None
    width: Any = None  # d_head, padded
    half: Any = None  # d_pos / 2
    half_width: Any = None
    chunk: Any = None
    acc: Any = None  # dtype of sums
    precision: Any = None
    block_q: Any = None
    block_k: Any = None
    block_r: Any = None
    block_c: Any = None


@functools.lru_cache(maxsize=1024)
def _static(dtype: torch.dtype, precision: str, d_head: int, d_pos: int, **fields: Any) -> Static:
    import triton.language as tl

    width, half_width = _padded(d_head), _padded(d_pos // 2)
    if "chunk" in fields:
        fields["chunk"] = min(fields["chunk"], max(width, half_width))
    fields |= {"d_head": d_head, "width": width, "half": d_pos // 2, "half_width": half_width}
    fields["acc"] = tl.float64 if dtype == torch.float64 else tl.float32
    fields["precision"] = precision if dtype == torch.float32 else "ieee"
    return Static(**{name: tl.constexpr(value) for name, value in fields.items()})


def _padded(width: int) -> int:
    """The tile width that holds ``width`` columns: a power of two, at least the 16 that tensor cores take."""
    return max(16, 1 << max(0, width - 1).bit_length())


def torch_accumulator(dtype: torch.dtype) -> torch.dtype:
    """Torch's dtype of sums."""
    return torch.float64 if dtype == torch.float64 else torch.float32


# --- Angles ---------------------------------------------------------------------------------------


def tables(key_rows: int, d_pos: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """``[cos wt | sin wt]`` of the positions ``0 .. key_rows`` and more, ``[T, d_pos]``: in ``dtype``, and as sums are.

    T is a power of two, so that growing lengths share a table.
    """
    length = 1 << key_rows.bit_length()
    exact = torch_accumulator(dtype)
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    make = _make_table if capturing else _table  # a table made during a capture is filled only in its replays
    angles = make(length, d_pos, exact, device)
    return (angles if dtype == exact else make(length, d_pos, dtype, device)), angles


@torch.no_grad()
def _make_table(length: int, d_pos: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        sine, cosine = sinusoids(torch.arange(length, device=device), d_pos, dtype)
        return torch.cat([cosine, sine], dim=-1)


_table = functools.lru_cache(maxsize=64)(_make_table)
