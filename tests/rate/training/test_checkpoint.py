"""Checkpoints: whole or not there, only the newest kept, everything restored."""

from __future__ import annotations

import pytest
import torch

from rate.training import checkpoint
from rate.training.trainer import make_optimizer
from tests.rate import helpers
from tests.rate.training.helpers import TRAINING


def _trained(seed=0, **settings):
    model = helpers.model(seed, torch.float32, **settings)
    optimizer = make_optimizer(model, TRAINING)
    batch = helpers.batch([3], model.config, dtype=torch.float32)
    model(batch.observations, batch.actions, batch.returns_to_go).predictions.sum().backward()
    optimizer.step()
    return model, optimizer


def test_everything_is_restored(tmp_path):
    model, optimizer = _trained()
    torch.manual_seed(3)
    saved = checkpoint.save(tmp_path, 12, model, optimizer, keep=2)
    expected = torch.rand(5)
    assert saved.path == tmp_path / "update-00000012" and checkpoint.existing(tmp_path) == [saved]
    other, other_optimizer = _trained(seed=1)
    checkpoint.restore(saved, other, other_optimizer)
    assert torch.equal(torch.rand(5), expected)
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    ours, theirs = other_optimizer.state_dict()["state"], optimizer.state_dict()["state"]
    assert ours.keys() == theirs.keys() and theirs
    for key in theirs:
        assert all(torch.equal(ours[key][name], theirs[key][name]) for name in theirs[key])


def test_only_the_newest_are_kept(tmp_path):
    model, optimizer = _trained()
    for update in (8, 9, 10, 100):
        checkpoint.save(tmp_path, update, model, optimizer, keep=2)
    assert [c.update for c in checkpoint.existing(tmp_path)] == [10, 100]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["update-00000010", "update-00000100"]


def test_saving_an_update_again_replaces_it(tmp_path):
    model, optimizer = _trained()
    checkpoint.save(tmp_path, 5, model, optimizer, keep=1)
    with torch.no_grad():
        model.memory.fill_(7.0)
    saved = checkpoint.save(tmp_path, 5, model, optimizer, keep=1)
    other, other_optimizer = _trained(seed=1)
    checkpoint.restore(saved, other, other_optimizer)
    assert (other.memory == 7).all()


def test_what_is_half_written_is_no_checkpoint(tmp_path, monkeypatch):
    model, optimizer = _trained()
    first = checkpoint.save(tmp_path, 1, model, optimizer, keep=2)

    def fail(*_):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="no space"):
            checkpoint.save(tmp_path, 2, model, optimizer, keep=1)
    assert (tmp_path / ".update-00000002.tmp").is_dir()
    assert checkpoint.existing(tmp_path) == [first]
    second = checkpoint.save(tmp_path, 2, model, optimizer, keep=1)  # over what was left behind
    assert [p.name for p in tmp_path.iterdir()] == ["update-00000002"]
    assert (second.path / "training.pt").is_file()


def test_no_folder_has_no_checkpoints(tmp_path):
    assert checkpoint.existing(tmp_path / "none") == []


def test_what_does_not_fit_is_named(tmp_path):
    model, optimizer = _trained()
    saved = checkpoint.save(tmp_path, 1, model, optimizer, keep=1)
    with pytest.raises(ValueError, match=f"config does not fit the checkpoint {saved.path}"):
        checkpoint.restore(saved, *_trained(num_memory=3))
    (saved.path / "training.pt").unlink()
    with pytest.raises(FileNotFoundError, match=f"no training.pt in {saved.path}"):
        checkpoint.restore(saved, model, optimizer)
