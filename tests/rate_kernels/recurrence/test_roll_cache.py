"""roll_cache: the kept rows, no gradient, no aliasing, and the native backend against plain concatenation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rate_kernels.recurrence import native, roll_cache

CPU = torch.device("cpu")
NATIVE = pytest.param(
    "native", marks=pytest.mark.skipif(native.obstacle(CPU) is not None, reason=str(native.obstacle(CPU)))
)
BACKENDS = ["reference", NATIVE]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def layers(
    batch: int, rows: list[int], dim: int, seed: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, count, dim, generator=generator).to(dtype) for count in rows]


def last_rows(old: Tensor, new: Tensor, cache_len: int) -> Tensor:
    joined = torch.cat((old, new), dim=1)
    return joined[:, max(0, joined.shape[1] - cache_len) :]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(0, 4),
    rows=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=4),
    cache_len=st.integers(0, 30),
    dim=st.integers(0, 33),
    dtype=st.sampled_from(DTYPES),
)
def test_last_rows_of_both(backend, batch, rows, cache_len, dim, dtype):
    cache = layers(batch, [c for c, _ in rows], dim, 0, dtype)
    hidden = layers(batch, [q for _, q in rows], dim, 1, dtype)
    rolled = roll_cache(cache, hidden, cache_len, backend=backend)
    assert isinstance(rolled, list)
    assert len(rolled) == len(rows)
    for out, old, new in zip(rolled, cache, hidden, strict=True):
        assert out.is_contiguous()
        assert torch.equal(out, last_rows(old, new, cache_len))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_large_enough_for_threads(backend, threads):
    cache, hidden = layers(3, [150] * 3, 6144, 0), layers(3, [63] * 3, 6144, 1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rolled = roll_cache(cache, hidden, 170, backend=backend)
    finally:
        torch.set_num_threads(before)
    for out, old, new in zip(rolled, cache, hidden, strict=True):
        assert torch.equal(out, last_rows(old, new, 170))


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs(backend):
    cache = [torch.randn(7, 2, 16).transpose(0, 1)[:, :, ::2], torch.randn(1, 7, 8).expand(2, 7, 8)]
    hidden = [torch.randn(2, 5, 16)[:, :, :8], torch.randn(2, 8, 5).transpose(1, 2)]
    for cache_len in (3, 9, 40):
        for out, old, new in zip(
            roll_cache(cache, hidden, cache_len, backend=backend), cache, hidden, strict=True
        ):
            assert torch.equal(out, last_rows(old, new, cache_len))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("c", "cache_len"), [(6, 8), (0, 5), (6, 5), (6, 0), (6, 50), (0, 50)])
def test_neither_gradient_nor_aliasing(backend, c, cache_len):
    cache, hidden = layers(2, [c, c], 4, 0), layers(2, [5, 5], 4, 1)
    for tensor in cache + hidden:
        tensor.requires_grad_()
    rolled = roll_cache(cache, hidden, cache_len, backend=backend)
    expected = [last_rows(o, n, cache_len).detach().clone() for o, n in zip(cache, hidden, strict=True)]
    with torch.no_grad():
        for tensor in cache + hidden:
            tensor.fill_(7.0)
    for out, kept in zip(rolled, expected, strict=True):
        assert not out.requires_grad
        assert torch.equal(out, kept)


@pytest.mark.parametrize("backend", [NATIVE])
def test_every_element_is_written(backend, monkeypatch):
    allocate = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *args: allocate(*args).fill_(torch.nan))
    assert torch.zeros(1).new_empty(2).isnan().all()
    for cache_len in (1, 4, 5, 9, 11, 20):
        for out in roll_cache(layers(2, [6, 0], 4, 0), layers(2, [5, 5], 4, 1), cache_len, backend=backend):
            assert not out.isnan().any()


@pytest.mark.parametrize(
    ("cache", "hidden", "cache_len", "error", "message"),
    [
        ([], [(2, 5, 4)], 3, ValueError, r"cache must have one tensor per layer as hidden does \(1\), got 0"),
        ([(2, 6, 4)], [(2, 5, 4)], -1, ValueError, "cache_len must be at least 0, got -1"),
        ([(2, 6, 4)], [(5, 4)], 3, ValueError, r"hidden\[0\] must be \[B, Lq, d\], got \[5, 4\]"),
        ([(3, 6, 4)], [(2, 5, 4)], 3, ValueError, r"cache\[0\] must be \[2, any, 4\], got \[3, 6, 4\]"),
        (
            [(2, 6, 4)] * 2,
            [(2, 5, 4), (2, 5, 3)],
            3,
            ValueError,
            r"hidden\[1\] must be \[2, any, 4\], got \[2, 5, 3\]",
        ),
    ],
)
def test_errors_name_the_argument(cache, hidden, cache_len, error, message):
    with pytest.raises(error, match=message):
        roll_cache(
            [torch.zeros(shape) for shape in cache], [torch.zeros(shape) for shape in hidden], cache_len
        )


def test_dtype_and_device_must_agree():
    with pytest.raises(TypeError, match=r"cache\[0\] must have the dtype of hidden\[0\]"):
        roll_cache([torch.zeros(2, 6, 4).double()], [torch.zeros(2, 5, 4)], 3)
    with pytest.raises(TypeError, match=r"cache\[0\] must be on the device of hidden\[0\]"):
        roll_cache([torch.zeros(2, 6, 4, device="meta")], [torch.zeros(2, 5, 4)], 3)
    with pytest.raises(TypeError, match=r"hidden\[0\] must be float32"):
        roll_cache([torch.zeros(2, 6, 4).long()], [torch.zeros(2, 5, 4).long()], 3)
