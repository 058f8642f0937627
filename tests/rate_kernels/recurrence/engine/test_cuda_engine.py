"""The acting engine on a CUDA device, beside the reference in float64; in CUDA graphs; what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rate_kernels.recurrence import RecurrenceShape, SegmentRecurrence, TokenInput
from rate_kernels.recurrence.engine import native
from rate_kernels.recurrence.engine.api import RecurrenceOutput
from tests.rate_kernels.recurrence.engine.episodes import (
    moved,
    random_parameters,
    random_shape,
    random_tokens,
    relative_error,
    worst_error,
)

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
TMAZE_SCRIPT = RecurrenceShape(
    d_model=64, num_layers=10, num_heads=4, d_head=32, d_inner=0, num_memory=15, segment_tokens=150, gate_heads=2,
    observation="vector", observation_size=4, action_size=4,
)  # fmt: skip
VIZDOOM = RecurrenceShape(
    d_model=64, num_layers=6, num_heads=8, d_head=64, d_inner=128, num_memory=15, segment_tokens=150, cache_len=100,
    gate_heads=2, block="published", observation="embedded", action_size=5,
)  # fmt: skip
ATARI = RecurrenceShape(
    d_model=128, num_layers=6, num_heads=8, d_head=128, d_inner=0, num_memory=15, segment_tokens=90, cache_len=360,
    gate_heads=1, block="published", observation="embedded", action_size=18,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _native_runs():
    # On a device the native backend is required: a reason it cannot run is a failure, not a skip.
    assert native.obstacle(CUDA) is None


def recurrence(shape, batch, weights=torch.float32, seed=0):
    parameters = {name: x.to(CUDA) for name, x in random_parameters(shape, seed, weights).items()}
    return SegmentRecurrence(shape, parameters, batch, backend="native", weights=weights)


def on_cuda(shape, batch, generator):
    return moved(random_tokens(shape, batch, generator), CUDA, torch.float32, shape)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(25))
def test_random_models_equal_the_reference(seed, weights):
    shape, batch = random_shape(seed), (1, 3, 7, 150)[seed % 4]
    engine = recurrence(shape, batch, weights, seed)
    limit = 1e-4 if weights == torch.float32 else 1e-3
    parameters = random_parameters(shape, seed, weights)
    assert worst_error(engine._engine, shape, parameters, batch, 25, seed) < limit


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [TMAZE_SCRIPT, VIZDOOM, ATARI], ids=["tmaze", "vizdoom", "atari"])
def test_real_sizes_equal_the_reference(shape, weights):
    """Up to a full context: few segments end early."""
    engine = recurrence(shape, 4, weights)
    limit = 1e-4 if weights == torch.float32 else 1e-3
    parameters = random_parameters(shape, 0, weights)
    assert worst_error(engine._engine, shape, parameters, 4, 120, 0, disturbance=0.03) < limit


def test_repeats_give_the_same_bits():
    """A race between warps would show as a difference, now and then."""
    expected = None
    for _ in range(30):
        engine, generator = recurrence(TMAZE_SCRIPT, 133), torch.Generator().manual_seed(0)
        engine.reset()
        for _ in range(6):
            out = engine.step(torch.full((133,), 3), on_cuda(TMAZE_SCRIPT, 133, generator))
        engine.end_segment()
        found = (*out, engine.memory())
        expected = expected or [x.clone() for x in found]
        assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_environments_do_not_depend_on_each_other():
    shape, batch = dataclasses.replace(TMAZE_SCRIPT, num_layers=3, cache_len=40), 300

    def run(rows):
        engine, generator = recurrence(shape, len(rows)), torch.Generator().manual_seed(0)
        engine.reset()
        for step in range(5):
            tokens = on_cuda(shape, batch, generator)
            tokens = TokenInput(tokens.returns[rows], tokens.observations[rows], tokens.actions[rows])
            out = engine.step((rows + step) % 4, tokens)
            if step == 2:
                engine.end_segment(rows % 3 == 0)
        return *out, engine.memory()

    together = run(torch.arange(batch))
    for env in (0, 1, 131, 132, 299):
        alone = run(torch.tensor([env]))
        assert all(torch.equal(x[0], y[env]) for x, y in zip(alone, together, strict=True))


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=str)
def test_step_in_a_cuda_graph(weights):
    """A recorded step replayed through segments equals the calls that it records, to the bit."""
    shape, batch = TMAZE_SCRIPT, 5
    eager, recorded = recurrence(shape, batch, weights), recurrence(shape, batch, weights)
    generator = torch.Generator().manual_seed(0)
    count = torch.full((batch,), 3, device=CUDA)
    tokens = on_cuda(shape, batch, generator)
    output = RecurrenceOutput(torch.zeros(batch, 64, device=CUDA), torch.zeros(batch, 4, device=CUDA))
    recorded.reset()
    recorded.launch_step(count, tokens, output)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded.launch_step(count, tokens, output)
    recorded.reset()
    eager.reset()
    for step in range(60):
        new, counts = on_cuda(shape, batch, generator), torch.randint(0, 4, (batch,), generator=generator)
        for held, fresh in ((tokens.returns, new.returns), (tokens.observations, new.observations),
                            (tokens.actions, new.actions), (count, counts)):  # fmt: skip
            held.copy_(fresh)
        for tensor in output:
            tensor.zero_()
        graph.replay()
        recorded.raise_if_refused(count)
        for ours, theirs in zip(output, eager.step(counts, new), strict=True):
            assert torch.equal(ours, theirs)
        if step % 20 == 19:
            ends = torch.tensor([True, False, True, True, False])
            recorded.end_segment(ends)
            eager.end_segment(ends)
    assert torch.equal(recorded.memory(), eager.memory())


def test_runs_on_the_current_stream():
    engine, generator, stream = (
        recurrence(TMAZE_SCRIPT, 3),
        torch.Generator().manual_seed(0),
        torch.cuda.Stream(),
    )
    tokens, count = on_cuda(TMAZE_SCRIPT, 3, generator), torch.full((3,), 3)
    engine.reset()
    expected = engine.step(count, tokens)
    engine.reset()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        late = TokenInput(
            *(torch.empty_like(x) for x in (tokens.returns, tokens.observations, tokens.actions))
        )
        torch.cuda._sleep(50_000_000)
        for to, source in ((late.returns, tokens.returns), (late.observations, tokens.observations),
                           (late.actions, tokens.actions)):  # fmt: skip
            to.copy_(source)
        found = engine.step(count, late)
    stream.synchronize()
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_bad_input_names_the_environment_and_changes_nothing():
    engine, generator = recurrence(TMAZE_SCRIPT, 200), torch.Generator().manual_seed(0)
    count, tokens = torch.full((200,), 3), on_cuda(TMAZE_SCRIPT, 200, generator)
    with pytest.raises(RuntimeError, match="environment 0 must be reset"):
        engine.step(count, tokens)
    engine.reset()
    engine.step(count, tokens)
    before = engine._engine._block.clone()
    tokens.observations[177, 2] = torch.nan
    tokens.returns[180] = torch.inf
    with pytest.raises(ValueError, match="observation of environment 177 is not finite"):
        engine.step(count, tokens)
    with pytest.raises(ValueError, match="observation of environment 177 is not finite"):
        engine.end_segment(None, count, tokens)
    assert torch.equal(engine._engine._block.view(torch.int32), before.view(torch.int32))
    count[177:181] = 0
    engine.step(count, tokens)


def test_state_moves_between_devices():
    """Bytes of a CUDA engine go on in the reference on a CPU."""
    shape, generator = (
        dataclasses.replace(random_shape(1), segment_tokens=9, cache_len=13),
        torch.Generator().manual_seed(0),
    )
    ours = recurrence(shape, 3, seed=1)
    ours.reset()
    ours.step(torch.tensor([3, 2, 1]), on_cuda(shape, 3, generator))
    ours.end_segment(torch.tensor([True, False, True]))
    ours.step(torch.tensor([2, 3, 2]), on_cuda(shape, 3, generator))
    theirs = SegmentRecurrence(shape, random_parameters(shape, 1), 3, backend="reference")
    theirs.load_state_bytes(ours.state_bytes())
    tokens = random_tokens(shape, 3, generator)
    found = ours.step(torch.tensor([3, 1, 3]), moved(tokens, CUDA, torch.float32, shape))
    for x, y in zip(found, theirs.step(torch.tensor([3, 1, 3]), tokens), strict=True):
        assert relative_error(x, y) < 1e-4


def test_a_model_too_wide_says_so():
    shape = dataclasses.replace(random_shape(1), d_head=160)
    with pytest.raises(RuntimeError, match="d_head must be at most 128 on CUDA, got 160"):
        recurrence(shape, 1)
