"""A model is a module like any other: precisions, autocast, copies, DataParallel, torch.export, states on disk."""

from __future__ import annotations

import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn.parallel import scatter_gather

from rate import RateOutput, SegmentState
from tests.rate import helpers

K = 3
MODELS = {
    "memory": {},
    "memory and cache": {"cache_len": 7},
    "cache": {"num_memory": 0, "gate_heads": 0, "cache_len": 5},
    "neither": {"num_memory": 0, "gate_heads": 0},
    "published": {"block": "published", "shift": "transformer_xl", "gating": True, "action": "continuous"},
}


def _segments(model, batch=2, steps=K, count=2, dtype=torch.float32):
    whole = helpers.batch([count * steps] * batch, model.config, dtype=dtype)
    parts = (whole.observations, whole.actions, whole.returns_to_go)
    return [tuple(part[:, n * steps : (n + 1) * steps].contiguous() for part in parts) for n in range(count)]


def _read(model, dtype=torch.float32, **sizes):
    """The second of two segments."""
    first, second = _segments(model, dtype=dtype, **sizes)
    return model(*second, model(*first).state)


def _flat(out):
    memory = [] if out.state.memory is None else [out.state.memory]
    return [out.predictions, *memory, *out.state.cache]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("cast", "dtype", "tolerance"),
    [
        (nn.Module.half, torch.float16, 3e-3),
        (lambda model: model.to(torch.bfloat16), torch.bfloat16, 3e-2),
        (nn.Module.double, torch.float64, 1e-5),
    ],
    ids=["half", "bfloat16", "double"],
)
def test_precisions(name, cast, dtype, tolerance):
    model = helpers.model(dtype=torch.float32, **MODELS[name]).eval()
    expected = _read(model)
    other = cast(copy.deepcopy(model))
    assert {p.dtype for p in other.parameters()} == {dtype}
    out = _read(other)  # from float32 observations and returns, as environments give them
    for actual, wanted in zip(_flat(out), _flat(expected), strict=True):
        assert actual.dtype == dtype
        assert helpers.error(actual, wanted) < tolerance
    loss = _read(other.train()).predictions.double().square().sum()
    gradients = torch.autograd.grad(loss, list(other.parameters()), allow_unused=True)
    assert all(g is None or (g.dtype == dtype and g.isfinite().all()) for g in gradients)
    assert sum(g is not None for g in gradients) > len(gradients) / 2


@pytest.mark.parametrize("name", MODELS)
def test_autocast(name):
    model = helpers.model(dtype=torch.float32, **MODELS[name])
    expected = _read(model)
    with torch.autocast("cpu", torch.bfloat16):
        out = _read(model)
    assert out.predictions.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in _flat(out)[1:]} <= {
        torch.float32
    }  # what is carried keeps its precision
    for actual, wanted in zip(_flat(out), _flat(expected), strict=True):
        assert 0 < helpers.error(actual, wanted) < 3e-2
    out.predictions.float().square().sum().backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize("name", MODELS)
def test_copies_act_alike_and_train_apart(name):
    model = helpers.model(dtype=torch.float32, **MODELS[name])
    expected = _flat(_read(model))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for actual, wanted in zip(_flat(_read(copied)), expected, strict=True):
            assert torch.equal(actual, wanted)
        _read(copied).predictions.square().sum().backward()
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.add_(1.0)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(_read(model).predictions, expected[0])


def test_outputs_and_states_are_tuples_that_can_be_copied_and_pickled():
    out = _read(helpers.model(dtype=torch.float32, cache_len=5))
    predictions, state = out
    assert predictions is out.predictions and state is out.state and isinstance(out, RateOutput)
    for copied in (copy.deepcopy(state.detach()), pickle.loads(pickle.dumps(state.detach()))):
        assert isinstance(copied, SegmentState)
        assert torch.equal(copied.memory, state.memory) and torch.equal(copied.cache[1], state.cache[1])
    file = io.BytesIO()
    torch.save(state.detach(), file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=True).memory, state.memory)


def test_data_parallel_without_devices():
    model = helpers.model(dtype=torch.float32, cache_len=5)
    wrapped = nn.DataParallel(model)
    first, second = _segments(model)
    out = wrapped(*second, wrapped(*first).state)
    assert torch.equal(out.predictions, _read(model).predictions)
    model.load_state_dict({k.removeprefix("module."): v for k, v in wrapped.state_dict().items()})


class _Cut:
    """Stands in for what DataParallel calls on devices, which a machine may not have: cut and join on the CPU."""

    @staticmethod
    def scatter(devices, chunk_sizes, dim, tensor):
        return tensor.chunk(len(devices), dim)

    @staticmethod
    def gather(device, dim, *tensors):
        return torch.cat(tensors, dim)


@pytest.mark.parametrize("name", MODELS)
def test_data_parallel_splits_and_joins_states(monkeypatch, name):
    monkeypatch.setattr(scatter_gather.Scatter, "apply", _Cut.scatter)
    monkeypatch.setattr(scatter_gather.Gather, "apply", _Cut.gather)
    model = helpers.model(dtype=torch.float32, **MODELS[name]).eval()
    first, second = _segments(model, batch=4)
    expected = model(*second, model(*first).state)
    halves = scatter_gather.scatter((*second, model(*first).state), ["one", "two"])
    assert [half[0].shape[0] for half in halves] == [2, 2]
    found: dict[int, RateOutput] = {}

    def run(rank):  # replicas run in threads of their own
        found[rank] = model(*halves[rank])

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out = scatter_gather.gather([found[0], found[1]], "one")
    assert isinstance(out, RateOutput) and isinstance(out.state, SegmentState)
    for actual, wanted in zip(_flat(out), _flat(expected), strict=True):
        assert helpers.error(actual, wanted) < 1e-6


def test_export_with_any_batch_and_number_of_steps():
    model = helpers.model(dtype=torch.float32, num_layers=1, cache_len=7).eval()
    first, second = _segments(model, batch=3, steps=4)
    state = model(*first).state
    batch, steps = Dim("batch", min=1, max=512), Dim("steps", min=2, max=256)
    cached = {0: batch, 1: Dim("cached", min=1, max=512)}
    sizes = SegmentState({0: batch}, [cached for _ in state.cache])
    program = torch.export.export(
        model, (*second, state), dynamic_shapes=({0: batch, 1: steps},) * 3 + (sizes,)
    )
    for other in ({"batch": 2, "steps": 7}, {"batch": 1, "steps": 2}):
        first, second = _segments(model, **other)
        state = model(*first).state
        expected, out = model(*second, state), program.module()(*second, state)
        assert isinstance(out, RateOutput)
        for actual, wanted in zip(_flat(out), _flat(expected), strict=True):
            assert helpers.error(actual, wanted) < 1e-6


def test_an_exported_model_is_saved_and_loaded():
    model = helpers.model(dtype=torch.float32, num_layers=1).eval()
    segment = _segments(model, count=1)[0]
    program = torch.export.export(model, segment)  # an episode's first segment: no state comes in
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    out = torch.export.load(file).module()(*segment)
    assert isinstance(out.state, SegmentState)
    assert torch.equal(out.predictions, model(*segment).predictions)
