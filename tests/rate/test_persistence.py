"""Models written and read: bitwise the same, and what is said when they do not fit."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import rate
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


@pytest.mark.parametrize("damage", ["a header cut", "a length changed", "bytes more", "a name changed"])
def test_a_damaged_header_is_named(saved, damage):
    file = saved / "model.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "a header cut":
        content = content[:20]
    elif damage == "a length changed":
        content[0] ^= 0xFF
    elif damage == "bytes more":
        content += b"more"
    else:
        content = content.replace(b"content_bias", b"content_bios")
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file}"):
        RATE.from_pretrained(saved)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((2, 8), torch.nan), "holds values that are not finite"),
        (torch.full((2, 8), torch.inf), "holds values that are not finite"),
        (torch.ones(2, 8, dtype=torch.int64), "must be floating point, got torch.int64"),
    ],
)
def test_parameters_that_cannot_be_are_named(saved, value, message):
    tensors = load_file(saved / "model.safetensors")
    save_file(tensors | {"content_bias": value}, saved / "model.safetensors")
    with pytest.raises(ValueError, match=f"content_bias in {saved}/model.safetensors {message}"):
        RATE.from_pretrained(saved)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_layers", 2.5, "num_layers must be an integer, got 2.5"),
        ("gating", "yes", "gating must be True or False, got 'yes'"),
        ("dropout", None, "dropout must be a number, got None"),
        ("wings", 2, "unknown field 'wings'"),
        ("observation_shape", [3, 4], "observation_shape must have 1 numbers"),
        ("gate_heads", 5, "gate_heads must divide d_model = 16, got 5"),
    ],
)
def test_an_edited_config_is_named(saved, field, value, message):
    file = saved / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=f"{file} is not valid: .*{message}"):
        RATE.from_pretrained(saved)


def test_an_image_size_that_no_encoder_takes_is_named(tmp_path):
    helpers.model(**MODELS["image"]).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"observation_shape": [1, 4, 4]}))
    with pytest.raises(ValueError, match=f"{file} is not valid: observation_shape .* too small"):
        RATE.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_precision_is_kept(tmp_path, dtype):
    model = helpers.model(dtype=dtype, normalize_observations=True).eval()
    model.save_pretrained(tmp_path)
    loaded = RATE.from_pretrained(tmp_path)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {dtype}
    _assert_same(model, loaded)
    assert all(isinstance(p, torch.nn.Parameter) and p.requires_grad for p in loaded.parameters())


def test_a_moved_folder_gives_the_same_in_a_process_that_never_saw_our_source(tmp_path):
    model = helpers.model(dtype=torch.float32, cache_len=4).eval()
    model.save_pretrained(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    batch = helpers.batch([3, 3], model.config, dtype=torch.float32)
    inputs = batch.observations, batch.actions, batch.returns_to_go
    out = model(*inputs, model(*inputs).state)
    torch.save((inputs, out.predictions, out.state.memory), tmp_path / "expected.pt")
    # The current folder holds no source; the package is found where it is installed.
    code = """
import torch
from rate import RATE
inputs, predictions, memory = torch.load("expected.pt", weights_only=True)
model = RATE.from_pretrained("there")
out = model(*inputs, model(*inputs).state)
assert torch.equal(out.predictions, predictions) and torch.equal(out.state.memory, memory)
print("the same")
"""
    environment = os.environ | {"PYTHONPATH": str(Path(rate.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "the same\n", done.stderr


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
