"""Training through memory: replay against plain back-propagation, how far losses reach, padding."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from rate.data import SegmentBatch
from rate.recurrence import batch_loss, read_segment, unfinished_segments
from tests.rate import helpers

K = 3
FAMILY = {
    "memory": {},
    "cache": {"cache_len": 11, "read_cache": True},
    "no gate": {"gate_heads": 0},
    "published block": {"block": "published", "cache_len": 5},
    "cache only": {"num_memory": 0, "gate_heads": 0, "cache_len": 9},
}


def _gradients(model, loss):
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))


def _assert_equal_gradients(ours, expected):
    for name, gradient in expected.items():
        if name == "gate.key.bias":  # adds the same to all scores of a softmax: without effect
            assert ours[name].norm() < 1e-12 and gradient.norm() < 1e-12
            continue
        assert gradient.norm() > 1e-6, name
        assert helpers.error(ours[name], gradient) < 1e-10, name


@pytest.mark.parametrize("span", [None, 1, 2])
@pytest.mark.parametrize("name", FAMILY)
def test_replay_equals_plain_backpropagation(name, span):
    model = helpers.model(dropout=0.2, attention_dropout=0.1, **FAMILY[name]).train()
    batch = helpers.batch([6 * K, 4 * K + 1, 2], model.config)
    results = []
    for replay in (True, False):
        torch.manual_seed(7)
        out = batch_loss(model, batch, gradient_span=span, replay=replay)
        results.append((out.loss.detach(), out.accuracy, _gradients(model, out.loss)))
    (loss, accuracy, ours), (plain_loss, plain_accuracy, plain) = results
    assert helpers.error(loss, plain_loss) < 1e-12 and torch.equal(accuracy, plain_accuracy)
    if span == 1:  # no loss reaches the gate, which is used between segments only
        for parameter in [name for name in plain if name.startswith("gate.")]:
            assert plain.pop(parameter) is None and ours[parameter] is None
    _assert_equal_gradients(ours, plain)


def test_dropout_is_active_in_the_comparison():
    model = helpers.model(dropout=0.2).train()
    batch = helpers.batch([6 * K], model.config)
    assert batch_loss(model, batch).loss != batch_loss(model, batch).loss


class _Ledger(TorchDispatchMode):
    """Bytes of all storages made while it is on and still alive, whoever holds them; keeps the peak."""

    def __init__(self):
        super().__init__()
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = function(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out


def _peak(segments: int, replay: bool) -> int:
    model = helpers.model(dropout=0.1, d_model=16, segment_length=8, cache_len=0).train()
    batch = helpers.batch([8 * segments] * 16, model.config)
    with _Ledger() as ledger:
        batch_loss(model, batch, replay=replay).loss.backward()
    assert segments == 1 or model.gate.value.weight.grad.norm() > 0
    return ledger.peak


def test_replay_keeps_the_activations_of_one_segment():
    plain, replayed = _peak(6, replay=False), _peak(6, replay=True)
    assert plain > 5 * _peak(1, replay=False)  # the ledger sees what is kept
    assert replayed < plain / 3
    assert replayed < 1.5 * _peak(1, replay=False)


def _reach(span: int | None, segments: int) -> tuple[torch.Tensor, list[bool]]:
    """``[i, j]``: norm of the gradient of segment j's loss for segment i's observations; gate's gradient after j."""
    model = helpers.model()
    whole = helpers.batch([segments * K] * 2, model.config)
    reach, gate, before = torch.zeros(segments, segments), [], torch.zeros_like(whole.observations)
    for j in range(segments):
        # The gradient of the sum over segments 0 to j, less that of the sum over segments 0 to j - 1.
        part = SegmentBatch(*(tensor[:, : (j + 1) * K] for tensor in whole._tensors()))
        part.observations = part.observations.clone().requires_grad_()
        loss = batch_loss(model, part, gradient_span=span).loss * part.mask.sum()
        model.zero_grad()
        loss.backward()
        gradient = torch.zeros_like(before)
        gradient[:, : (j + 1) * K] = part.observations.grad
        reach[:, j] = (gradient - before).unflatten(1, (segments, K)).flatten(2).norm(dim=(0, 2))
        gate.append(model.gate.output.weight.grad is not None and bool(model.gate.output.weight.grad.any()))
        before = gradient
    return reach, gate


@pytest.mark.parametrize("span", [None, 1, pytest.param(2, marks=pytest.mark.interpreter), 3])
def test_gradient_span(span):
    segments = 4
    reach, gate = _reach(span, segments)
    for i, j in itertools.product(range(segments), repeat=2):
        # The memory is cut every `span` segments, so a loss reaches back to the last cut.
        reaches = i <= j and (span is None or i // span == j // span)
        assert (reach[i, j] > 1e-7) if reaches else (reach[i, j] < 1e-12), (i, j)
    assert gate == [j >= 1 and span != 1 for j in range(segments)]


def test_gradient_span_below_one_is_refused():
    model = helpers.model()
    with pytest.raises(ValueError, match="gradient_span must be at least 1 or None, got 0"):
        batch_loss(model, helpers.batch([K], model.config), gradient_span=0)


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("action", ["discrete", "continuous"])
@pytest.mark.parametrize("name", FAMILY)
def test_mixed_lengths_equal_episodes_one_by_one(name, action, replay):
    model = helpers.model(action=action, **FAMILY[name])
    lengths = [1, 4 * K, 2 * K + 1, 2 * K, K - 1]
    batch = helpers.batch(lengths, model.config)
    out = batch_loss(model, batch, replay=replay)
    total, correct = torch.zeros((), dtype=torch.float64), 0
    for row, length in enumerate(lengths):
        state = None
        for start in range(0, length, K):
            part = slice(start, min(start + K, length))
            seen, acted, asked = (
                t[row : row + 1, part] for t in (batch.observations, batch.actions, batch.returns_to_go)
            )
            step = model(seen, acted, asked, state)
            state = step.state
            if action == "discrete":
                likely = step.predictions.log_softmax(-1)
                total = total - likely.gather(-1, acted[..., None]).sum()
                correct += int((likely.argmax(-1) == acted).sum())
            else:
                total = total + (step.predictions - acted).square().mean(-1).sum()
    assert helpers.error(out.loss, total / sum(lengths)) < 1e-12
    if action == "discrete":
        assert out.accuracy.item() == pytest.approx(correct / sum(lengths))
    else:
        assert math.isnan(out.accuracy)
    _assert_equal_gradients(_gradients(model, out.loss), _gradients(model, total / sum(lengths)))


def test_what_padding_holds_does_not_matter():
    model = helpers.model()
    batch = helpers.batch([2, 3 * K], model.config)
    expected = batch_loss(model, batch).loss
    batch.observations[0, 2:] = 5.0
    batch.actions[0, 2:] = 3
    batch.returns_to_go[0, 2:] = -9.0
    assert helpers.error(batch_loss(model, batch).loss, expected) < 1e-13


def test_memory_stays_as_it_is_after_an_episodes_end():
    model = helpers.model(dtype=torch.float32)
    batch = helpers.batch([K - 1, 3 * K], model.config, dtype=torch.float32)
    memories, state = [], model.initial_state(2)
    for segment in batch.segments(K):
        state = read_segment(model, segment, state).state
        memories.append(state.memory)
    assert torch.equal(memories[0][0], memories[1][0]) and torch.equal(memories[0][0], memories[2][0])
    assert not torch.equal(memories[0][1], memories[1][1])
    assert not torch.equal(memories[1][1], memories[2][1])


def test_all_padding_leaves_the_memory_bitwise():
    model = helpers.model()
    segment = next(helpers.batch([K], model.config).segments(K))
    segment.mask = torch.zeros_like(segment.mask)
    state = model.initial_state(1)
    sums = read_segment(model, segment, state)
    assert torch.equal(sums.state.memory, state.memory)
    assert sums.loss == 0 and sums.correct == 0


def test_no_work_is_done_on_episodes_that_have_ended():
    model = helpers.model()
    batch = helpers.batch([1, 4 * K, 2 * K + 1, 2 * K, K - 1], model.config)
    segments = list(unfinished_segments(model, batch))
    assert [len(segment.mask) for segment in segments] == [5, 3, 2, 1]
    assert all(segment.mask.any(1).all() for segment in segments)
    assert torch.equal(segments[3].observations[0], batch.observations[1, 3 * K :])


@pytest.mark.parametrize("replay", [True, False])
def test_a_compiled_model_gives_the_same(replay):
    # It reads whole batches, ended episodes included, so that only one size is compiled.
    model = helpers.model(num_layers=1, cache_len=5)
    batch = helpers.batch([1, 3 * K, K + 1], model.config)
    compiled = torch.compile(model, backend="eager")
    assert {len(segment.mask) for segment in unfinished_segments(compiled, batch)} == {3}
    loss, expected = (batch_loss(m, batch, replay=replay).loss for m in (compiled, model))
    assert helpers.error(loss, expected) < 1e-12
    _assert_equal_gradients(_gradients(model, loss), _gradients(model, expected))
