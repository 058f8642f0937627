"""The command line: help, one line per error, and every command on small data."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from rate import RATE, models
from rate.cli import main
from rate.data import MinariEpisodes, write_minari
from tests.rate.data.helpers import random_recordings
from tests.rate.training.helpers import metrics

SMALL = shlex.split(
    "--model.segment-length 2 --model.segments 2 --model.d-model 16 --model.num-layers 1 --model.num-heads 2 "
    "--model.d-inner 16 --training.updates 3 --training.batch-size 4 --training.threads 1 --training.device cpu"
)
MAZE = shlex.split("--episodes 12 --corridor 1 2 3 --eval-corridor 2 --training.eval-episodes 4")
COMMANDS = ("collect", "data", "train", "compare", "eval", "plot", "push", "info")
VECTOR, ACTIONS = spaces.Box(-5, 5, (3,), np.float32), spaces.Discrete(4)
PNG = b"\x89PNG\r\n\x1a\n"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, left as it is."""
    folder = tmp_path_factory.mktemp("runs") / "maze"
    assert main(["train", "tmaze", "--run", str(folder), *MAZE, *SMALL]) == 0
    return folder


def _data(name, observations=VECTOR, actions=ACTIONS):
    return write_minari(
        name,
        random_recordings(observations, actions, [3, 1, 5, 4]),
        observation_space=observations,
        action_space=actions,
    )


def _is_drawn(path):
    return path.read_bytes().startswith(PNG) and path.stat().st_size > 5000


def test_help(capsys):
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: rate COMMAND") and all(f"\n  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command != "data"]
)  # it has commands of its own
def test_help_of_commands(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert not ended.value.code
    out, err = capsys.readouterr()
    assert out.startswith("usage: ") and not err
    if command == "train":
        assert "--training.gradient-span" in out and "paper/tmaze" in out


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--training.lr", "-1"], "Error parsing training: lr must be positive, got -1.0"),
        (["--training.lr", "x"], "Error parsing --training.lr: could not convert string to float: 'x'"),
        (["--nope", "3"], "Unrecognized options: --nope, 3"),
    ],
)
def test_bad_options_are_one_line_in_any_terminal(arguments, said, encoding):
    command = [sys.executable, "-m", "rate", "train", "tmaze", *arguments]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == f"rate train: {said} (see rate train --help)\n"


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "rate", "fly"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and not done.stdout
    assert (
        done.stderr
        == "rate: command must be one of collect, data, train, compare, eval, plot, push, info, got 'fly'\n"
    )


def _poison(name, **changes):
    """A data set whose file was changed afterwards: ``field=(episode, step, value)``."""
    with h5py.File(_data(name) / "data" / "main_data.hdf5", "a") as file:
        for field, (episode, step, value) in changes.items():
            file[f"episode_{episode}"][field][step] = value


def _empty(name):
    folder = _data(name) / "data"
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | {"total_episodes": 0, "total_steps": 0}))
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        for key in list(file):
            del file[key]
        file.attrs["total_episodes"] = file.attrs["total_steps"] = 0


TMAZE = ["tmaze", *MAZE, *SMALL]
ERRORS = {
    "neither task nor data": ("train", "name a task, or --dataset PATH_OR_ID"),
    "unknown task": ("train chess", "task 'chess' is not known; families: tmaze, "),
    "unknown task of data": ("train chess --dataset demo/set-v0", "task 'chess' is not known"),
    "unknown option of a task": ("train tmaze --options size=3", "tmaze has no option 'size'; known are "),
    "unknown preset": ("train tmaze --preset paper/chess", "--preset must be one of small, paper, default, tmaze, "),
    "no value": ("train tmaze --run", "Missing value for argument '--run'"),
    "unknown option": ("train tmaze --speed 3", "Unrecognized options: --speed"),
    "no number": ("train tmaze --training.updates many", "--training.updates: invalid literal"),
    "no updates": ("train tmaze --training.updates 0", "updates must be at least 1, got 0"),
    "no segments": ("train tmaze --model.segments 0", "num_segments must be at least 1, got 0"),
    "width": ("train tmaze --model.gate-heads 7", "gate_heads must divide d_model = 64, got 7"),
    "corridor": ("train tmaze --corridor 0", "corridor_lengths must be integers of at least 1, got (0,)"),
    "unknown device": ("train tmaze --training.device toaster", "device 'toaster' is not available"),
    "existing run": ("train tmaze --run RUN", "a run is already at RUN: continue it with --resume RUN"),
    "a file in the way": ("train tmaze --run RUN/run.json/deeper", "Not a directory: 'RUN/run.json/deeper"),
    "nothing to resume": ("train --resume none", "no run at none: none/run.json is missing"),
    "no such data": ("train --dataset no/such-v0", "no Minari data set 'no/such-v0'"),
    "empty data": ("train --dataset bad/empty-v0", "bad/empty-v0/data must hold at least one episode, got 0"),
    "NaN": ("train --dataset bad/nan-v0", "episode 2: observations contain NaN at step 1"),
    "infinite reward": ("train --dataset bad/reward-v0", "episode 3: rewards contain infinity at step 2"),
    "action": ("train --dataset bad/action-v0", "episode 0: actions contain 4 at step 2, expected 0 to 3"),
    "eval: nothing to act in": ("eval MODEL", "name what to act in: --task NAME, --corridor LENGTHS"),
    "eval: no run": ("eval none", "no run at none"),
    "eval: no model": ("eval .", "no config.json at config.json"),
    "eval: device": ("eval RUN --device toaster", "device 'toaster' is not available"),
    "eval: environment": ("eval RUN --env Chess-v0", "--env Chess-v0: Environment `Chess` doesn't exist"),
    "eval: spaces": ("eval RUN --env CartPole-v1", "env takes discrete actions of size 2, the model gives discrete 4"),
    "eval: episodes": ("eval RUN --num-envs 0", "--num-envs must be at least 1, got 0"),
    "eval: no episodes": ("eval RUN --episodes 0", "--episodes must be at least 1, got 0"),
    "eval: video": ("eval RUN --video film.mp4", "the video's path must end in .gif or .webp, got film.mp4"),
    "eval: video of an environment": ("eval RUN --env CartPole-v1 --video a.gif", "--video draws a task's episode"),
    "no expert": ("train mujoco-hopper", "mujoco-hopper has no scripted expert (nobody can script one: load D4RL"),
    "eval: corridors of another task": ("eval RUN --task minigrid-memory --corridor 3", "--corridor does not go with"),
    "eval: corridors twice": ("eval RUN --at 3 --corridor 3", "--corridor does not go with --at"),
    "eval: temperature": ("eval RUN --temperature -1", "temperature must be at least 0, got -1"),
    "collect: task": ("collect chess", "task 'chess' is not known; families: tmaze, "),
    "collect: episodes": ("collect tmaze --episodes 0", "num_episodes must be at least 1, got 0"),
    "collect: existing": ("collect tmaze --output bad/nan-v0 --episodes 2", "bad/nan-v0 is there already"),
    "plot: nothing": ("plot", "name at least one run's folder"),
    "plot: no run": ("plot none", "no none/metrics.csv: rate train writes it"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_line(case, capsys, run, tmp_path):
    line, message = ERRORS[case]
    if "bad/" in line:
        _poison("bad/nan-v0", observations=(2, 1, np.nan))
        _poison("bad/reward-v0", rewards=(3, 2, np.inf))
        _poison("bad/action-v0", actions=(0, 2, 4))
        _empty("bad/empty-v0")
    if "MODEL" in line:
        RATE.from_pretrained(run).save_pretrained(tmp_path / "model")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    line, message = (
        text.replace("RUN", str(run)).replace("MODEL", str(tmp_path / "model")) for text in (line, message)
    )
    capsys.readouterr()
    assert main(line.split()) == 2
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert len(lines) == 1 and err.endswith("\n"), err
    assert lines[0].startswith(f"rate {line.split()[0]}: ") and message in lines[0]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_traceback_on_demand(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run at"):
        main(["eval", str(tmp_path / "none"), "--traceback"])


def test_an_interruption_outside_of_training_is_one_line(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rate.cli.plot.main", interrupt)
    assert main(["plot", "run"]) == 130
    assert capsys.readouterr().err == "rate plot: interrupted\n"


def test_collect_train_eval_plot(tmp_path, capsys):
    assert main(["collect", "tmaze", "--output", "mazes", "--episodes", "10", "--corridor", "1", "2"]) == 0
    assert (
        capsys.readouterr().out
        == f"10 episodes in {tmp_path}/mazes\ntrain on them: rate train --dataset mazes\n"
    )
    assert sorted(set(MinariEpisodes("mazes").lengths)) == [2, 3]
    run = tmp_path / "run"
    assert main(["train", "--dataset", "mazes", "--run", str(run), *SMALL]) == 0
    out = capsys.readouterr().out
    assert "10 windows, updates 0 to 3 on cpu" in out and f"the model is in {run}" in out
    card = run / "README.md"
    assert "trained offline on mazes" in card.read_text() and "## Results" not in card.read_text()
    assert main(["eval", str(run), "--corridor", "1", "4", "--episodes", "6"]) == 0
    assert "| corridor | success | episodes |" in card.read_text() and "](success.png)" in card.read_text()
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[0] == ["corridor", "success", "95%", "return", "episodes", "steps/s"]
    assert [row[0] for row in table[1:3]] == ["1", "4"]
    with open(run / "evaluation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["corridor"] for row in rows] == ["1", "4"] and {row["episodes"] for row in rows} == {"6"}
    assert all(0 <= float(row["success"]) <= 1 for row in rows)
    assert _is_drawn(run / "success.png")
    assert main(["plot", str(run), "--output", str(tmp_path / "pictures")]) == 0
    assert _is_drawn(tmp_path / "pictures" / "curves.png") and _is_drawn(
        tmp_path / "pictures" / "success.png"
    )
    film = ["--video", str(tmp_path / "films" / "maze.webp")]
    assert main(["eval", str(run), "--corridor", "6", "1", "--episodes", "2", *film]) == 0
    said = capsys.readouterr().out
    assert "segment 1: the write tokens looked at step " in said and f"drawn: {film[1]} and " in said
    assert (
        _is_drawn(tmp_path / "films" / "maze-still.png") and (tmp_path / "films" / "maze.webp").stat().st_size
    )
    assert main(["eval", str(run), "--options", "corridor_length=7", "--episodes", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "7"
    assert main(["eval", str(run), "--env", "rate/TMaze-v0", "--episodes", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("rate/TMaze-v0: return ")


def test_a_task_run_is_evaluated_where_it_was_trained(run, tmp_path, capsys):
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 4 and rows[-1].split(",")[-1].startswith("success_2=")
    assert json.loads((run / "run.json").read_text())["corridor"] == [1, 2, 3]
    assert main(["plot", str(run), "--output", str(tmp_path)]) == 0
    assert _is_drawn(tmp_path / "curves.png") and not (tmp_path / "success.png").exists()


@pytest.mark.parametrize("preset", [[], ["--preset", "default"], ["--preset=default"]])
def test_presets_are_defaults(tmp_path, preset):
    assert (
        main(
            [
                "train",
                "tmaze",
                *preset,
                "--run",
                "run",
                "--episodes",
                "8",
                *SMALL,
                "--training.eval-every",
                "0",
            ]
        )
        == 0
    )
    asked = json.loads((tmp_path / "run" / "run.json").read_text())
    assert asked["training"]["lr"] == (3e-4 if preset else 1e-3)
    # The default preset fits no environment, so the lengths that fit the window are taken.
    assert asked["corridor"] == (list(range(1, 59)) if preset else list(range(1, 25)))
    assert asked["model"]["d_model"] == 16 and asked["training"]["updates"] == 3


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        (VECTOR, ACTIONS),
        (spaces.Discrete(6, start=2), spaces.Discrete(3, start=-1)),
        (VECTOR, spaces.Box(-2, 2, (2,), np.float32)),
        (spaces.Box(0, 255, (36, 40, 3), np.uint8), spaces.Box(-1, 1, (1,), np.float32)),
    ],
)
def test_train_on_data(observations, actions, tmp_path, capsys):
    _data("demo/set-v0", observations, actions)
    flags = ["--model.normalize-observations", "True", "--model.cache-len", "4"]
    assert main(["train", "--dataset", "demo/set-v0", "--run", "run", *SMALL, *flags]) == 0
    model = RATE.from_pretrained(tmp_path / "run")
    continuous = isinstance(actions, spaces.Box)
    assert model.config.action_scale == (float(actions.high.max()) if continuous else 1.0)
    assert model.config.action_size == (actions.shape[0] if continuous else actions.n)
    assert model.config.normalize_observations == (observations is VECTOR)
    if observations is VECTOR:
        seen = np.concatenate([episode.observations for episode in MinariEpisodes("demo/set-v0")])
        np.testing.assert_allclose(model.observation_encoder.mean, seen.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.observation_encoder.std, seen.std(0), rtol=1e-3)
    assert all(np.isfinite(float(row["loss"])) for row in metrics(tmp_path / "run"))


@pytest.mark.parametrize("family", ["dt", "dt-long", "rmt", "trxl", "gtrxl", "rate", "bc-lstm"])
def test_the_published_family_and_the_baselines_train(family, tmp_path):
    """As many updates as batches whose episodes are all short: none may need a whole window."""
    flags = ["--corridor", "1", "3", "--episodes", "6", "--training.batch-size", "1"]
    assert main(["train", *TMAZE, *flags, "--run", "run", "--model", family]) == 0
    model = models.load(tmp_path / "run")
    assert model.config.segment_length == (4 if family == "dt-long" else 2)
    assert model.config.architecture == ("lstm" if family == "bc-lstm" else "transformer")
    assert main(["eval", "run", "--corridor", "5", "--episodes", "2"]) == 0
