"""Every family from recording to evaluation, on the command line, with what the paper reports printed beside."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from rate.cli import main
from tests.rate.envs.helpers import SMALL, recorded_trained_and_tried

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")

AAR = "associative-retrieval"


def test_associative_retrieval(tmp_path, capsys):
    (row,) = recorded_trained_and_tried(AAR, tmp_path, "length=13")
    assert (row["at"], row["steps"], row["target_return"], row["temperature"]) == ("13", "13", "1", "1")
    out = capsys.readouterr().out
    assert "associative-retrieval, length 13: 4 episodes of 13.0 steps, target return 1, sampled at" in out
    assert "the paper prints no figure for this task" in out
    assert (
        main(["eval", str(tmp_path / "run"), "--episodes", "2", "--at", "7", "20", "--temperature", "0"]) == 0
    )
    out = capsys.readouterr().out
    assert (
        "length 7: 2 episodes of 7.0" in out and "length 20: 2 episodes of 20.0" in out and "likeliest" in out
    )


def test_minigrid(tmp_path, capsys):
    pytest.importorskip("minigrid", reason="needs rate-kernels[minigrid]")
    (row,) = recorded_trained_and_tried(
        "minigrid-memory", tmp_path, "size=7", "tile_size=12", "time_limit=30"
    )
    assert row["paper_rate"] == "" and row["at"] == "7" and float(row["steps"]) <= 30
    assert "the paper's figures are for time_limit 500, tile_size 28: --options" in capsys.readouterr().out
    assert main(["eval", str(tmp_path / "run"), "--episodes", "2", "--at", "31"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("minigrid-memory, size 31: 2 episodes")
    assert not any(line.startswith("paper, ") for line in lines)


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("popgym-RepeatFirstEasy", "1"),  # one number
        ("popgym-AutoencodeEasy", "-0.29"),  # several
        ("popgym-PositionOnlyPendulumHard", "0.49"),  # real ones, seen and acted
        ("popgym-MineSweeperEasy", "0.15"),  # cells of a board
    ],
)
def test_popgym(name, paper, tmp_path, capsys):
    pytest.importorskip("popgym", reason="needs rate-kernels[popgym]")
    (row,) = recorded_trained_and_tried(name, tmp_path)
    assert row["paper_rate"] == paper and row["at"] == "" and row["measure"] == "return"
    out = capsys.readouterr().out
    assert f"{name}: 4 episodes" in out and out.count("paper, ") == 6 and "Table 9" in out


def test_a_task_alone_is_recorded_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = [AAR, "--options", "length=6", "--episodes", "8", *SMALL, "--training.updates", "3"]
    assert main(["train", *asked, "--run", "run", "--model.gate-heads", "7"]) == 2  # before any time is spent
    assert "gate_heads must divide" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main(["train", *asked, "--run", "run"]) == 0
    captured = capsys.readouterr()
    assert (
        f"recording 8 episodes of {AAR}'s expert in run/data" in captured.err and "8 windows" in captured.out
    )
    first = (tmp_path / "run" / "metrics.csv").read_text()
    (tmp_path / "run" / "run.json").unlink()
    for done in (tmp_path / "run" / "checkpoints").iterdir():
        (done / "model.safetensors").unlink(missing_ok=True)
    assert main(["train", *asked, "--run", "run"]) == 0  # the data are there already
    assert "recording" not in capsys.readouterr().err

    def losses(text):
        return [line.split(",")[1] for line in text.splitlines()]

    assert losses((tmp_path / "run" / "metrics.csv").read_text()) == losses(first)
    (tmp_path / "run" / "run.json").unlink()
    assert main(["train", AAR, "--options", "length=9", *SMALL, "--run", "run"]) == 2
    assert "run/data holds associative-retrieval with {'length': 6" in capsys.readouterr().err


def test_a_task_and_a_data_set_together(tmp_path, capsys):
    """What was recorded with other options is tried with those, unless told otherwise."""
    data, run = str(tmp_path / "data"), tmp_path / "run"
    assert main(["collect", AAR, "--episodes", "6", "--options", "length=6", "--output", data]) == 0
    for options, expected in (([], ["length=6"]), (["--options", "length=9"], ["length=6", "length=9"])):
        folder = f"{run}{len(options)}"
        changed = ["--training.updates", "2", "--target-return", "0.5"]
        asked = ["--preset", "default", *options, *SMALL, *changed]
        assert main(["train", AAR, "--dataset", data, "--run", folder, *asked]) == 0
        asked = json.loads((tmp_path / folder / "run.json").read_text())
        assert asked["options"] == expected and asked["target_return"] == 0.5
        capsys.readouterr()
        assert main(["eval", folder, "--episodes", "2"]) == 0
        steps = expected[-1].removeprefix("length=")
        assert f"2 episodes of {steps}.0 steps, target return 0.5" in capsys.readouterr().out


def test_a_missing_package_is_said_before_training_or_does_not_stop_it(tmp_path, monkeypatch, capsys):
    pytest.importorskip("minigrid", reason="needs rate-kernels[minigrid]")
    import dataclasses

    from rate.envs import registry

    data = str(tmp_path / "data")
    asked = ["--run", str(tmp_path / "run"), *SMALL, "--training.updates", "2"]
    assert (
        main(["collect", "minigrid-memory", "--episodes", "2", "--options", "size=7", "--output", data]) == 0
    )
    minigrid = registry.task("minigrid-memory")
    lacking = dataclasses.replace(minigrid, packages=("no_such_package",))
    monkeypatch.setattr("rate.envs.minigrid.tasks.TASKS", (lacking,))
    capsys.readouterr()
    assert main(["train", "minigrid-memory", *asked]) == 2
    said = "minigrid-memory needs no_such_package: pip install 'rate-kernels[minigrid]'"
    assert capsys.readouterr().err == f"rate train: {said}\n"
    assert main(["train", "--dataset", data, *asked]) == 0
    assert f"not evaluated while training: {said}" in capsys.readouterr().err


def test_data_that_do_not_fit_the_task_are_said_before_training(tmp_path, capsys):
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    assert main(["collect", "tmaze", "--episodes", "4", "--corridor", "2", "--output", data]) == 0
    changed = ["--training.updates", "2", "--preset", "default"]
    assert main(["train", AAR, "--dataset", data, "--run", run, *SMALL, *changed]) == 0
    said = capsys.readouterr().err
    assert (
        "not evaluated while training: env gives vector observations (3,), the model reads vector (4,)"
        in said
    )


def test_files_that_know_fewer_actions_get_those_of_the_task(tmp_path):
    episodes = [
        {
            "observations": np.zeros((6, 3), np.float32),
            "actions": np.array([0, 1] * 3),
            "rewards": np.zeros(6, np.float32),
            "terminals": np.arange(6) == 5,
        }
    ]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(episodes))
    for name, expected in ((AAR, 3), ("tmaze", 4)):  # the second reads four numbers, and is not evaluated
        run = tmp_path / name
        changed = ["--training.updates", "2", "--preset", "default", "--data", str(tmp_path / "data.pkl")]
        assert main(["train", name, *changed, "--run", str(run), *SMALL]) == 0
        assert json.loads((run / "config.json").read_text())["action_size"] == expected
