"""Which settings the attention kernels may take, and problems to try them on (``rate_kernels.tune``, tests)."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from rate_kernels.attention.triton import launch
from rate_kernels.segment import SegmentLayout
from rate_kernels.triton_support import Launch

Sizes = dict[str, int]

TABLE = launch.TABLE
LARGEST: Sizes = {"d_head": 256, "d_pos": 512}
SIZES: dict[str, list[Sizes]] = {
    "bfloat16": [
        {"d_head": 64, "d_pos": 64, "length": 64},
        {"d_head": 64, "d_pos": 64, "length": 512},
        {"d_head": 64, "d_pos": 64},
        {"d_head": 128, "d_pos": 128},
        LARGEST,
    ],
    "tf32": [{"d_head": 64, "d_pos": 64}, {"d_head": 128, "d_pos": 128}, LARGEST],
    "float32": [{"d_head": 64, "d_pos": 64}, LARGEST],
}
"""Upper bounds of the sizes that take a row."""

KERNELS = (
    "attention_forward",
    "attention_backward_query",
    "attention_backward_key",
    "attention_backward_weight",
)


def rows(kernel: str, dtype: str) -> list[Sizes]:
    """The sizes for which the table has a row of ``kernel`` and ``dtype``, on every architecture that it has."""
    lengths_matter = kernel != "attention_backward_weight"
    return [sizes for sizes in SIZES[dtype] if lengths_matter or "length" not in sizes]


def problem(
    sizes: Sizes,
    dtype: str,
    device: str = "cuda",
    *,
    shift: str = "signed",
    padded: bool = False,
    dropout_p: float = 0.0,
) -> launch.Problem:
    """A problem that takes the row of ``sizes``: 512 batch entries of heads for short lengths, fewer for long ones."""
    length = min(sizes.get("length", 1024), 1024)
    layout = SegmentLayout(5 if length < 128 else 15, cache_len=0 if length < 128 else 360)
    query_rows = length - layout.cache_len
    heads, batch = 4, 128 if length < 128 else 16
    made = torch.float32 if dtype in ("tf32", "float32") else getattr(torch, dtype)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(made)

    d_head, d_pos = sizes["d_head"], sizes["d_pos"]
    return launch.Problem(
        tensor(batch, query_rows, heads, d_head),
        tensor(batch, length, heads, d_head),
        tensor(batch, length, heads, d_head),
        tensor(heads, d_head, d_pos),
        tensor(heads, d_head),
        tensor(heads, d_head),
        torch.zeros(batch, dtype=torch.int64, device=device) if padded else None,
        torch.zeros(1, dtype=torch.int64, device=device) if dropout_p else None,
        layout,
        shift == "transformer_xl",
        d_head**-0.5,
        dropout_p,
    )


def prepare(
    kernel: str, sizes: Sizes, dtype: str, settings: launch.Settings, device: str = "cuda", **flags: Any
) -> Launch:
    """A launch of ``kernel`` with these settings, on a problem of its own; ``flags`` as :func:`problem` takes them."""
    example = problem(sizes, dtype, device, **flags)._replace(chosen={kernel: settings})
    query = example.query
    batch, query_rows, heads, d_head = query.shape
    statistics = query.new_zeros((batch, heads, query_rows), dtype=launch.torch_accumulator(query.dtype))
    delta, out = torch.empty_like(statistics), torch.empty_like(query)
    d_halves = query.new_zeros((batch, query_rows, heads, sizes["d_pos"]))
    rotated = query.new_zeros((batch, heads, query_rows, sizes["d_pos"])) if settings.get("store") else None
    if kernel == "attention_forward":
        return launch.forward(example, out, statistics)
    if kernel == "attention_backward_query":
        sums = statistics.new_empty((batch * -(-query_rows // settings["block_q"]), heads, 2, d_head))
        d_query = torch.empty_like(query)
        return launch.backward_query(example, out, statistics, query, delta, d_query, d_halves, sums, rotated)
    if kernel == "attention_backward_key":
        d_key, d_value = torch.empty_like(example.key), torch.empty_like(example.value)
        return launch.backward_key(example, statistics, query, delta, d_key, d_value, rotated)
    return launch.backward_weight(example, d_halves)[0]


def candidates(kernel: str, sizes: Sizes) -> list[launch.Settings]:
    """Settings worth trying, those expected to be fastest first; not all of them fit every architecture."""
    wide = max(sizes["d_head"], sizes["d_pos"])
    short = sizes.get("length", 1 << 30) <= 64
    blocks: tuple[tuple[int, int], ...]
    if kernel == "attention_backward_weight":
        blocks = ((64, 64), (64, 32), (32, 32), (16, 16))
        return [
            {"block_r": rows, "block_c": columns, "num_warps": warps, "num_stages": stages}
            for (rows, columns), warps, stages in itertools.product(blocks, (4, 8), (3, 2))
        ]
    blocks = ((128, 64), (64, 128), (64, 64), (64, 32), (32, 64), (32, 32), (16, 32), (32, 16), (16, 16))
    if short:
        blocks = ((32, 32), (64, 32), (16, 32), (16, 16))
    chunks = (32, 64, 16) if wide <= 128 else (32, 16)
    stores = (False, True) if kernel == "attention_backward_key" else (False,)
    found = [
        {"block_q": rows, "block_k": keys, "chunk": chunk, "num_warps": warps, "num_stages": stages}
        for (rows, keys), stages, warps, chunk in itertools.product(blocks, (3, 2, 1), (4, 8), chunks)
        if rows * keys * (1 if warps == 8 else 2) <= 128 * 128
    ]
    return [settings | ({"store": store} if store else {}) for settings in found for store in stores]
