"""Options and presets."""

from __future__ import annotations

import dataclasses

import pytest

from rate import runs
from rate.data import SpaceSpec
from rate.envs import tasks
from rate.presets import PRESETS, preset_for, preset_of
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


@pytest.mark.parametrize("kind", ["small", "paper"])
def test_every_task_has_its_presets(kind):
    for task in tasks():
        options = preset_for(task.name.upper() if task.name != "tmaze" else task.name, kind)
        assert options.target_return == task.target_returns[0]
        assert (options.training.regime == "published") == (kind == "paper")
        assert options.model.config(SpaceSpec("vector", (3,)), SpaceSpec("discrete", (), n=2))
        task.settings({text.partition("=")[0]: None for text in options.options})  # raises for an unknown one
        window = options.model.segment_length * options.model.segments
        if task.family == "popgym" and kind == "paper":
            shortened = {"LabyrinthEscapeHard", "RepeatFirstMedium", "VelocityOnlyCartpoleHard"}
            whole = task.max_steps // (3 if task.name.removeprefix("popgym-") in shortened else 1)
            if task.name not in ("popgym-LabyrinthEscapeMedium", "popgym-RepeatFirstHard"):
                assert whole <= window < whole + 4


def test_presets_of_a_kind_need_a_task_that_is_known():
    assert preset_for("tmaze", "small").corridor == tuple(range(1, 25))
    assert preset_for("tmaze", "paper").corridor == tuple(range(1, 149))
    assert preset_for("popgym-AutoencodeEasy", "paper").model.segment_length == 35
    with pytest.raises(ValueError, match="--preset small needs a task"):
        preset_for(None, "small")
    with pytest.raises(ValueError, match="task 'chess' is not known"):
        preset_for("chess", "paper")
    with pytest.raises(
        ValueError, match=r"--preset must be one of small, paper, default, tmaze, .*, got 'huge'"
    ):
        preset_for("tmaze", "huge")


def test_a_command_line_starts_from_a_preset():
    name = "associative-retrieval"
    assert preset_of(name, [name]).options == ("length=15",)
    assert preset_of(name, [name, "--data=here"]).options == preset_of(name, ["--dataset", "x"]).options == ()
    for arguments in ([name, "--preset", "paper"], [name, "--preset=paper"]):
        assert preset_of(name, arguments).training.epochs == 75
    assert preset_of(None, []) == PRESETS["default"]


def test_the_published_family_follows_from_its_name():
    space, actions = SpaceSpec("vector", (4,)), SpaceSpec("continuous", (3,))
    of = {
        family: dataclasses.replace(helpers.MODEL, family=family, cache_len=0).config(space, actions, 2.0)
        for family in ("rate", "rmt", "trxl", "gtrxl", "dt", "dt-long", "bc-lstm")
    }
    assert of["rate"].gate_heads and not of["rmt"].gate_heads and of["rmt"].num_memory
    assert of["gtrxl"].gating and not of["trxl"].gating
    assert of["trxl"].cache_len == of["gtrxl"].cache_len == 12
    assert of["dt"].segment_length == 2 and not of["dt"].num_memory
    assert of["dt-long"].segment_length == 4 and not of["dt-long"].num_memory
    assert of["bc-lstm"].architecture == "lstm"
    assert {(c.action, c.action_size, c.action_scale) for c in of.values()} == {("continuous", 3, 2.0)}


@pytest.mark.parametrize(
    ("family", "window"), [("rate", (2, 2)), ("bc-lstm", (2, 2)), ("dt", (2, 1)), ("dt-long", (4, 1))]
)
def test_windows_are_what_a_model_reads_at_once(family, window):
    assert dataclasses.replace(helpers.MODEL, family=family).window() == window


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
