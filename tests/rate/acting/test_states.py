"""Actors as bytes, in another process too; models whose segments are read again; sampling among the most likely."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch

from rate.acting.segments import SegmentReader
from tests.rate import helpers

MODELS = {
    "memory": {"segment_length": 3},
    "cache": {"segment_length": 3, "cache_len": 14, "read_cache": True},
    "continuous": {"action": "continuous", "action_scale": 2.0},
    "published": {
        "block": "published",
        "cache_len": 5,
        "shift": "transformer_xl",
        "write_last_action": False,
    },
}
BATCH = 3


def _model(name, seed=0, dtype=torch.float32):
    return helpers.model(seed=seed, dtype=dtype, **MODELS[name]).eval()


def _observations(steps):
    return torch.randn(steps, BATCH, 3, generator=torch.Generator().manual_seed(0)).numpy()


def _acted(actor, observations):
    return np.stack([actor.act(x, x[:, 0].astype(float)) for x in observations])


def _started(model, steps=8):
    actor = model.actor(BATCH)
    actor.reset([1.0, 2.0, 3.0])
    for t, x in enumerate(_observations(steps)):
        if t == 4:
            actor.reset(5.0, [1])
        actor.act(x, x[:, 1].astype(float))
    return actor


@pytest.mark.parametrize("name", MODELS)
def test_an_actor_goes_on_from_its_bytes(name):
    model = _model(name)
    first = _started(model)
    data = first.state_bytes()
    other = model.actor(BATCH)
    other.load_state_bytes(data)
    np.testing.assert_array_equal(other.return_to_go, first.return_to_go)
    assert other.state_bytes() == data
    ahead = _observations(20)[8:]
    np.testing.assert_array_equal(_acted(other, ahead), _acted(first, ahead))
    np.testing.assert_array_equal(other.return_to_go, first.return_to_go)


def test_an_actor_goes_on_in_another_process(tmp_path):
    model = _model("cache")
    first = _started(model)
    model.save_pretrained(tmp_path)
    (tmp_path / "state").write_bytes(first.state_bytes())
    ahead = _observations(20)[8:]
    np.save(tmp_path / "ahead.npy", ahead)
    code = f"""
import json, pathlib, numpy as np
from rate import RATE
folder = pathlib.Path({str(tmp_path)!r})
actor = RATE.from_pretrained(folder).actor({BATCH})
actor.load_state_bytes((folder / "state").read_bytes())
print(json.dumps([actor.act(x, x[:, 0].astype(float)).tolist() for x in np.load(folder / "ahead.npy")]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    np.testing.assert_array_equal(json.loads(result.stdout), _acted(first, ahead))


def test_bytes_pass_between_backends():
    model = _model("cache")
    pytest.importorskip("rate_kernels._native")
    first = model.actor(BATCH, "native")
    first.reset(1.0)
    _acted(first, _observations(7))
    other = model.actor(BATCH, "reference")
    other.load_state_bytes(first.state_bytes())
    for x in _observations(15)[7:]:
        given = torch.from_numpy(x), torch.ones(BATCH)
        ours, theirs = (a._reader.read(*given) for a in (first, other))
        assert helpers.error(ours, theirs) < 1e-4
        for a in (first, other):
            a._reader.record(theirs.argmax(-1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "state is damaged"),
        (lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], "state is damaged"),
        (lambda data: b"something else", "state must be bytes from state_bytes"),
        (lambda data: "text", "state must be bytes from state_bytes"),
        (lambda data: data[:11] + bytes([9]) + data[12:], "state must be of version 1, got version 9"),
    ],
)
@pytest.mark.parametrize("name", ["memory", "published"])
def test_bytes_that_do_not_fit_are_refused_and_change_nothing(name, change, message):
    actor = _started(_model(name))
    before = actor.state_bytes()
    with pytest.raises(ValueError, match=message):
        actor.load_state_bytes(change(before))
    assert actor.state_bytes() == before


def test_bytes_of_others_are_refused():
    data = _started(_model("memory")).state_bytes()
    with pytest.raises(
        ValueError, match="state must be of this model, got that of one with other parameters"
    ):
        _model("memory", seed=1).actor(BATCH).load_state_bytes(data)
    with pytest.raises(ValueError, match="state must be of a model with cache_len 14, got 0"):
        _model("cache").actor(BATCH).load_state_bytes(data)
    with pytest.raises(
        ValueError, match="actor of 2 environments that reads tokens, got that of an actor of 3"
    ):
        _model("memory").actor(2).load_state_bytes(data)
    with pytest.raises(
        ValueError, match="reads segments, got that of an actor of 3 environments that reads tokens"
    ):
        _model("published").actor(BATCH).load_state_bytes(data)
    with pytest.raises(ValueError, match="state must have dtype float64, got float32"):
        _model("memory", dtype=torch.float64).actor(BATCH).load_state_bytes(data)


def test_models_in_transformer_xl_shift_read_their_segment_again_and_say_so(caplog):
    with caplog.at_level(logging.INFO, "rate"):
        actor = _model("published").actor(BATCH)
    assert actor.backend == "segments" and isinstance(actor._reader, SegmentReader)
    assert "acting reads the running segment again at every step: shift is transformer_xl" in caplog.text


def test_a_trained_model_needs_a_new_actor():
    """Token by token the parameters are those of the time when the actor was made."""
    model = _model("memory")
    actors = [model.actor(BATCH) for _ in range(2)]
    for actor in actors:
        actor.reset(1.0)
    given = torch.from_numpy(_observations(1)[0]), torch.ones(BATCH)
    before = actors[0]._reader.read(*given)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    actors[1].load_state_bytes(actors[1].state_bytes())  # still of the same parameters
    assert torch.equal(actors[1]._reader.read(*given), before)
    new = model.actor(BATCH)
    new.reset(1.0)
    assert not torch.allclose(new._reader.read(*given), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_act_in_float32(dtype):
    model = _model("memory", dtype=dtype)
    actor, other = model.actor(BATCH), model.float().actor(BATCH)
    for a in (actor, other):
        a.reset(1.0)
    np.testing.assert_array_equal(_acted(actor, _observations(9)), _acted(other, _observations(9)))


def test_top_k_samples_among_the_most_likely():
    actor = _model("memory").actor(1, temperature=1.0, top_k=2, generator=torch.Generator().manual_seed(0))
    logits = torch.tensor([[0.0, 2.0, -2.0, 1.0]]).expand(20_000, -1)
    counts = torch.bincount(actor._choose(logits), minlength=4) / 20_000
    expected = torch.zeros(4)
    expected[[1, 3]] = torch.tensor([2.0, 1.0]).softmax(-1)
    assert counts[0] == counts[2] == 0 and (counts - expected).abs().max() < 0.015
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        _model("memory").actor(1, top_k=0)


def test_the_cost_in_memory_does_not_grow_with_the_episode():
    actor = _model("cache").actor(BATCH)
    actor.reset(1.0)
    sizes = []
    for _ in range(3):
        _acted(actor, _observations(90))
        sizes.append(len(actor.state_bytes()))
    assert max(sizes) - min(sizes) < 16  # digits of a checksum
