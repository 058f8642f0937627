"""The CUDA sources, run on a CPU: every thread a fiber, barriers, shuffles and tensor-core fragments as documented.

It shows that indices, barriers and arithmetic are right; see emulation/cuda_runtime.h for what it cannot show.
"""

from __future__ import annotations

import dataclasses
import random
import shutil

import pytest
import torch

from rate_kernels import SegmentLayout
from rate_kernels.recurrence import native, reference
from rate_kernels.recurrence.engine.cuda import CudaEngine
from tests.native import emulated
from tests.rate_kernels.recurrence.engine.episodes import (
    moved,
    random_parameters,
    random_shape,
    random_tokens,
    worst_error,
)

pytest.importorskip("pybind11", reason="pybind11 is not installed (the dev extra has it)")
CPU = torch.device("cpu")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ was not found"),
    pytest.mark.skipif(native.obstacle(CPU) is not None, reason=str(native.obstacle(CPU))),
]
H200 = (132, 232448)  # multiprocessors, bytes of shared memory
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    return emulated.build(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(autouse=True)
def pretend(device, monkeypatch):
    device.pretend(*H200)
    monkeypatch.setenv("RATE_EMULATED_ORDER", "forward")


def strided(generator, batch, rows, dim, dtype):
    """A random view: wide rows, a batch that is expanded, or an address that only single elements divide."""
    kind = int(torch.randint(4, (), generator=generator))
    numbers = torch.randn(batch + 1, rows + 2, dim + 8, generator=generator).to(dtype)
    if kind == 0:
        return numbers[:batch, :rows, :dim].contiguous()
    if kind == 1:
        return numbers[:1, 1 : rows + 1, :dim].expand(batch, rows, dim)
    return numbers[1:, 1 : rows + 1, kind - 2 : kind - 2 + dim]


CASES = [
    (2, 3, 5, 7),
    (3, 1, 1, 16),
    (1, 0, 4, 33),
    (2, 4, 40, 64),
    (0, 2, 3, 4),
]  # batch, memory, steps, dim


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_packing_and_its_gradient(device, dtype, case):
    batch, memory, steps, dim = CASES[case]
    generator = torch.Generator().manual_seed(case)
    for last_action, write in ((True, True), (False, True), (True, False)):
        layout = SegmentLayout(memory, write)
        tokens = [
            strided(generator, batch, rows, dim, dtype)
            for rows in (memory, steps, steps, steps - (not last_action))
        ]
        expected = reference.pack_segment(tokens[0] if memory else None, *tokens[1:], layout)
        packed = torch.full_like(expected, torch.nan)
        count = 2 * steps + tokens[3].shape[1]
        sizes = (batch, memory, layout.num_write, count, dim, packed.element_size())
        device.pack_segment_cuda(packed.data_ptr(), sizes, tuple(map(native._view, tokens)), 0)
        assert torch.equal(packed, expected)

        gradient = strided(generator, batch, expected.shape[1], dim, dtype)
        parts = [torch.full((batch, x.shape[1], dim), torch.nan, dtype=dtype) for x in tokens]
        element = native._ELEMENTS[dtype]
        addresses = tuple(x.data_ptr() for x in parts)
        device.unpack_segment_cuda(native._view(gradient), sizes, element, addresses, 0)
        of_memory = gradient[:, :memory]
        if write:
            of_memory = of_memory + gradient[:, memory + count :]
        assert torch.equal(parts[0], of_memory)
        for kind, part in enumerate(parts[1:]):
            assert torch.equal(part, gradient[:, memory + kind : memory + count : 3])


@pytest.mark.parametrize("seed", range(8))
def test_roll_cache(device, seed):
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    batch, dim, layers = rng.choice([0, 1, 3]), rng.choice([3, 16, 64]), rng.choice([1, 3, 40])
    dtype, cache_len = rng.choice(DTYPES), rng.choice([0, 1, 5, 9, 50])
    cache = [strided(generator, batch, rng.choice([0, 2, 6]), dim, dtype) for _ in range(layers)]
    hidden = [strided(generator, batch, rng.choice([0, 1, 7]), dim, dtype) for _ in range(layers)]
    expected = reference.roll_cache(cache, hidden, cache_len)
    rolled = [torch.full_like(x, torch.nan) for x in expected]
    views = [
        (*native._view(old), old.shape[1], *native._view(new), new.shape[1], out.data_ptr())
        for old, new, out in zip(cache, hidden, rolled, strict=True)
    ]
    device.roll_cache_cuda(views, batch, cache_len, dim, rolled[0].element_size(), 0)
    assert all(torch.equal(out, kept) for out, kept in zip(rolled, expected, strict=True))


# --- The acting engine ----------------------------------------------------------------------------

GUARD = 64


def guarded(engine):
    """Moves what the engine works on between numbers that must neither be read (NaN) nor written."""
    names = ("_parameters", "_block", "_angles", "_scratch", "_report")
    held = []
    for name in names:
        inner = getattr(engine, name)
        fill = torch.nan if inner.is_floating_point() else -77
        outer = torch.full((inner.numel() + 2 * GUARD,), fill, dtype=inner.dtype)
        outer[GUARD:-GUARD] = inner.flatten() if name != "_scratch" else torch.nan
        held.append(outer)
    engine._guards, engine._report = held, held[4][GUARD:-GUARD]
    for field in dataclasses.fields(engine.state):
        views = getattr(engine.state, field.name)
        for i, view in enumerate(views if isinstance(views, list) else [views]):
            there = (
                held[1].view(view.dtype).as_strided(view.size(), view.stride(), view.storage_offset() + GUARD)
            )
            if isinstance(views, list):
                views[i] = there
            else:
                setattr(engine.state, field.name, there)
    engine._engine.attach(*(x.data_ptr() + GUARD * x.element_size() for x in held))
    return engine


def untouched(engine):
    for outer in engine._guards:
        for edge in (outer[:GUARD], outer[-GUARD:]):
            assert bool(edge.isnan().all() if edge.is_floating_point() else (edge == -77).all())


@pytest.mark.parametrize(
    ("seed", "weights"), [(seed, torch.float32 if seed % 3 else torch.bfloat16) for seed in range(15)]
)
def test_engine_equals_reference(device, monkeypatch, seed, weights):
    shape, batch = random_shape(seed), (1, 3, 6)[seed // 2 % 3]
    parameters = random_parameters(shape, seed, weights)
    device.pretend(*[(1, 232448), (2, 101376), H200, (132, 50000)][seed % 4])
    monkeypatch.setenv("RATE_EMULATED_ORDER", ["forward", "reverse", "11"][seed // 2 % 3])
    threads = (32, 128, 64)[seed // 3 % 3]
    engine = CudaEngine(shape, parameters, batch, weights=weights, library=device, threads=threads)
    # What bfloat16 leaves of an input is right to 2^-17, a hundred times less than what it leaves of a weight.
    limit = 1e-4 if weights == torch.float32 else 1e-3
    assert worst_error(engine, shape, parameters, batch, 9, seed) < limit


def short_episode(device, order, monkeypatch, batch=4, rows=None, threads=64):
    """State and predictions after a few calls, of the environments ``rows`` alone."""
    shape = random_shape(0)
    monkeypatch.setenv("RATE_EMULATED_ORDER", order)
    rows = torch.arange(batch) if rows is None else torch.tensor(rows)
    engine = CudaEngine(shape, random_parameters(shape, 0), len(rows), library=device, threads=threads)
    engine.reset(torch.ones(len(rows), dtype=torch.bool))
    generator, outputs = torch.Generator().manual_seed(0), []
    for count in ([2, 3, 1, 0], [3, 0, 2, 3], [1, 3, 3, 2]):
        tokens = random_tokens(shape, batch, generator)
        tokens = type(tokens)(tokens.returns[rows], tokens.observations[rows], tokens.actions[rows])
        outputs += engine.step(torch.tensor(count)[rows], tokens)
    ends = torch.tensor([True, False, True, True])[rows]
    engine.end_segment(ends, torch.zeros(len(rows), dtype=torch.int64), type(tokens)())
    return [x.clone() for x in (*outputs, engine.state.memory)]


def test_order_of_threads_changes_no_bit(device, monkeypatch):
    expected = short_episode(device, "forward", monkeypatch)
    for order in ("reverse", "1", "2"):
        found = short_episode(device, order, monkeypatch)
        assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_environments_do_not_depend_on_each_other(device, monkeypatch):
    device.pretend(1, H200[1])  # four environments share a block
    together = short_episode(device, "forward", monkeypatch)
    for env in range(4):
        alone = short_episode(device, "forward", monkeypatch, rows=[env])
        assert all(torch.equal(x[0], y[env]) for x, y in zip(alone, together, strict=True))


def test_nothing_outside_of_its_memory_is_read_or_written(device):
    for seed in (1, 3):
        shape = random_shape(seed)
        device.pretend(1, 40000)  # the residual stream lies in scratch memory
        parameters = random_parameters(shape, seed)
        engine = guarded(CudaEngine(shape, parameters, 3, library=device, threads=64))
        assert worst_error(engine, shape, parameters, 3, 8, seed) < 1e-4
        untouched(engine)


def test_refusals_change_nothing(device):
    shape = dataclasses.replace(random_shape(4), segment_tokens=9)
    engine = CudaEngine(shape, random_parameters(shape, 4), 3, library=device, threads=64)
    tokens = moved(random_tokens(shape, 3, torch.Generator().manual_seed(0)), CPU, torch.float32, shape)
    with pytest.raises(RuntimeError, match="environment 0 must be reset"):
        engine.step(torch.tensor([1, 1, 1]), tokens)
    engine.reset(torch.ones(3, dtype=torch.bool))
    engine.step(torch.tensor([1, 2, 3]), tokens)
    before = engine._block.clone()
    for count, change, message in (
        ([1, 4, 1], {}, "count must be 0 to 3, got 4 for environment 1"),
        ([1, -1, 1], {}, "count must be 0 to 3, got -1 for environment 1"),
        (
            [0, 0, 3],
            {"returns": torch.tensor([torch.nan, 0.0, torch.inf])},
            "return of environment 2 is not finite",
        ),
        ([3, 0, 0], {"actions": None}, "action of environment 0 is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.step(torch.tensor(count), type(tokens)(**{**vars(tokens), **change}))
        assert torch.equal(engine._block.view(torch.int32), before.view(torch.int32))
    for _ in range(2):
        engine.step(torch.tensor([0, 0, 3]), tokens)
    with pytest.raises(ValueError, match="for environment 2, whose segment has"):
        engine.step(torch.tensor([1, 1, 3]), tokens)
    engine.step(torch.tensor([1, 1, 0]), tokens)


def test_many_inputs_are_checked_by_a_launch_before(device):
    shape = random_shape(1)
    batch = 16384 // (3 * shape.d_model) + 1
    engine = CudaEngine(shape, random_parameters(shape, 1), batch, library=device, threads=32)
    engine.reset(torch.ones(batch, dtype=torch.bool))
    embedded = torch.randn(batch, 3, shape.d_model)
    count = torch.zeros(batch, dtype=torch.int64)
    count[batch - 2] = 1
    engine.step(count, type(random_tokens(shape, 1, torch.Generator()))(embedded=embedded))
    embedded[batch - 2, 0, -1] = torch.nan
    with pytest.raises(ValueError, match=f"embedded token of environment {batch - 2} is not finite"):
        engine.step(count, type(random_tokens(shape, 1, torch.Generator()))(embedded=embedded))
    assert engine.state.tokens.sum() == 1


def test_shapes_beyond_the_device_are_refused(device):
    device.pretend(132, 20000)
    shape = random_shape(2)
    with pytest.raises(ValueError, match="too wide for one block on CUDA: it needs"):
        CudaEngine(shape, random_parameters(shape, 2), 1, library=device)
