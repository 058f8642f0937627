"""Models written and read: bitwise the same, and what is said when they do not fit."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from rate import RATE
from rate.persistence import write_atomically, write_text
from tests.rate import helpers

MODELS = {
    "memory": {},
    "gated cache": {"num_memory": 0, "gate_heads": 0, "cache_len": 7, "gating": True},
    "normalised": {"normalize_observations": True, "d_inner": 0},
    "image": {"observation": "image", "observation_shape": (1, 40, 40), "action": "continuous"},
}


@pytest.fixture
def saved(tmp_path):
    model = helpers.model(dtype=torch.float32)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def _assert_same(model, copied):
    assert type(copied) is RATE and copied.config == model.config
    assert list(copied.state_dict()) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(copied.state_dict()[name], tensor), name
        assert copied.state_dict()[name].data_ptr() != tensor.data_ptr()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("way", ["files", "deepcopy", "pickle", "torch.save"])
def test_round_trip_is_bitwise(tmp_path, name, way):
    model = helpers.model(dtype=torch.float32, **MODELS[name]).eval()
    for buffer in model.buffers():
        buffer.uniform_(0.5, 2)
    if way == "files":
        model.save_pretrained(tmp_path / "deep" / "er")
        copied = RATE.from_pretrained(str(tmp_path / "deep" / "er"))
        assert sorted(p.name for p in (tmp_path / "deep" / "er").iterdir()) == [
            "config.json",
            "model.safetensors",
        ]
        assert not copied.training
    elif way == "deepcopy":
        copied = copy.deepcopy(model)
    elif way == "pickle":
        copied = pickle.loads(pickle.dumps(model))
    else:
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        copied = torch.load(buffer, weights_only=False)
    _assert_same(model, copied)
    batch = helpers.batch([3], model.config, dtype=torch.float32)
    inputs = batch.observations, batch.actions, batch.returns_to_go
    assert torch.equal(copied(*inputs).predictions, model(*inputs).predictions)


def test_saving_again_replaces(saved):
    other = helpers.model(seed=1, dtype=torch.float32)
    other.save_pretrained(saved)
    _assert_same(other, RATE.from_pretrained(saved))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no model folder at {tmp_path}/none"):
        RATE.from_pretrained(tmp_path / "none")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no {name} .*{saved}"):
        RATE.from_pretrained(saved)


@pytest.mark.parametrize("content", [b"", b"garbage that is long enough to look like something", None])
def test_garbage_is_named(saved, content):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=f"{file} is not a safetensors file"):
        RATE.from_pretrained(saved)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"d_model": 32},
            r"config does not fit the checkpoint: content_bias is \[2, 8\] in .*, \[2, 16\] by",
        ),
        ({"num_layers": 3}, "config does not fit the checkpoint: .* lacks parameter 'layers.2"),
        ({"num_layers": 1}, "config does not fit the checkpoint: .* has unexpected parameter 'layers.1"),
        ({"gate_heads": 0}, "config does not fit the checkpoint: .* has unexpected parameter 'gate."),
    ],
)
def test_a_config_that_does_not_fit_is_named(saved, settings, message):
    write_text(saved / "config.json", helpers.config(**settings).to_json())
    with pytest.raises(ValueError, match=message):
        RATE.from_pretrained(saved)


@pytest.mark.parametrize(
    "content", [b"{", b'{"d_model": "wide"}', b'{"observation_shape": 4}', b"7", b"\xff\xfe"]
)
def test_a_config_that_is_none_is_named(saved, content):
    (saved / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"{saved}/config.json is not valid"):
        RATE.from_pretrained(saved)


def test_a_missing_parameter_is_named(saved):
    tensors = load_file(saved / "model.safetensors")
    tensors.pop("memory")
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(ValueError, match="lacks parameter 'memory'"):
        RATE.from_pretrained(saved)


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    write_text(tmp_path / "file", "before")

    def fail(path):
        path.write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_atomically(tmp_path / "file", fail)
    assert (tmp_path / "file").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
