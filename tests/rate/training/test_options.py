"""Options and presets."""

from __future__ import annotations

import dataclasses

import pytest

from rate import runs
from rate.data import SpaceSpec
from rate.presets import PRESETS
from rate.training import TrainingOptions
from tests.rate.training import helpers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"updates": 0}, "updates must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, got 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1, got 0"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"gradient_span": -1}, "gradient_span must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"lr": float("nan")}, "lr must be positive, got nan"),
    ],
)
def test_options_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**settings)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_make_models_and_survive_their_file(name, tmp_path):
    options = PRESETS[name]
    image, vector = SpaceSpec("image", (3, 84, 84)), SpaceSpec("vector", (4,))
    for observation in (image, vector):
        config = options.model.config(observation, SpaceSpec("discrete", (), n=4))
        assert config.segment_length == options.model.segment_length
        assert config.d_model == options.model.d_model and config.num_memory == options.model.num_memory
    assert config.normalize_observations == options.model.normalize_observations
    runs.create(tmp_path, options)
    assert runs.load_options(tmp_path) == options


def test_the_published_family_follows_from_its_name():
    space, actions = SpaceSpec("vector", (4,)), SpaceSpec("continuous", (3,))
    of = {
        family: dataclasses.replace(helpers.MODEL, family=family, cache_len=0).config(space, actions, 2.0)
        for family in ("rate", "rmt", "trxl", "gtrxl", "dt")
    }
    assert of["rate"].gate_heads and not of["rmt"].gate_heads and of["rmt"].num_memory
    assert of["gtrxl"].gating and not of["trxl"].gating
    assert of["trxl"].cache_len == of["gtrxl"].cache_len == 12
    assert of["dt"].segment_length == 4 and not of["dt"].num_memory
    assert {(c.action, c.action_size, c.action_scale) for c in of.values()} == {("continuous", 3, 2.0)}


def test_runs_are_not_overwritten(tmp_path):
    runs.create(tmp_path / "run", helpers.options())
    with pytest.raises(
        FileExistsError, match=f"a run is already at {tmp_path}/run: continue it with --resume"
    ):
        runs.create(tmp_path / "run", helpers.options())


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"model": {}}',
        '{"model": {"depth": 3}, "training": {}}',
        '{"model": {}, "training": {"updates": 0}, "corridor": [], "eval_corridor": []}',
    ],
)
def test_files_that_are_no_run_are_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=f"{tmp_path}/run.json is not a valid run"):
        runs.load_options(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no run at {tmp_path}/none"):
        runs.load_options(tmp_path / "none")
