"""Comparisons: what is run, that it is run once, what is written and drawn."""

from __future__ import annotations

import dataclasses
import json
import shlex

import numpy as np
import pytest

from rate import runs
from rate.cli import main
from rate.comparison import Cell, Plan, RunResult, perform, places, summarise
from rate.comparison.picture import draw, draw_tasks
from rate.comparison.runs import _paper, paper_name
from rate.comparison.summary import to_markdown
from rate.data import collect
from rate.envs import task
from rate.evaluation import Evaluation
from rate.protocol import Trial
from rate.training import RunOptions, Trainer
from tests.rate.training import helpers

SMALL = shlex.split(
    "--episodes 12 --corridor 1 2 3 --model.segment-length 2 --model.segments 2 --model.d-model 16 "
    "--model.num-layers 1 --model.num-heads 2 --model.d-inner 16 --training.updates 2 --training.batch-size 4 "
    "--training.threads 1 --training.device cpu --training.eval-episodes 4 --at 2 5 --output out"
)
MODELS = ["--models", "rate", "dt", "bc-lstm"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _plan(**changes) -> Plan:
    options = dataclasses.replace(helpers.options(), task=changes.pop("task", "tmaze"))
    if options.task != "tmaze":
        options = dataclasses.replace(options, corridor=(), eval_corridor=())
    settings = {"options": options, "models": ("rate", "dt"), "seeds": (0, 1), "output": "out"}
    return Plan(**settings | changes)


def test_models_are_trained_once_and_put_side_by_side(tmp_path, capsys, monkeypatch):
    assert main(["compare", "tmaze", *SMALL, *MODELS, "--seeds", "0"]) == 0
    out = tmp_path / "out"
    for model, batch in (("rate", 4), ("dt", 8), ("bc-lstm", 4)):
        options = runs.load_options(out / f"{model}-0")
        assert options.model.family == model and options.training.batch_size == batch
        assert options.dataset == "out/data" and options.training.seed == 0
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert len(written) == 6  # one each, and in a checkpoint each
    said = capsys.readouterr().out
    assert said.count("updates 0 to 2") == 3

    assert main(["compare", "tmaze", *SMALL, *MODELS, "--seeds", "0", "1"]) == 0
    assert capsys.readouterr().out.count("updates 0 to 2") == 3
    assert {path: path.stat().st_mtime_ns for path in written} == written

    results = json.loads((out / "results.json").read_text())
    assert results["command"].startswith("rate compare tmaze --episodes 12 ")
    assert len(results["runs"]) == 6 and results["machine"]["cores"] >= 1
    assert {run["model"]: run["updates"] for run in results["runs"]} == dict.fromkeys(MODELS[1:], 2)
    assert {(cell["at"], len(cell["seeds"])) for cell in results["summary"]} == {(2, 2), (5, 2)}
    lines = (out / "results.md").read_text().splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("| model"))
    assert "success, corridor_length 2 | success, corridor_length 5" in lines[header]
    assert [line.split()[1] for line in lines[header + 2 : header + 5]] == MODELS[1:]
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")

    assert main(["compare", "tmaze", *SMALL, *MODELS, "--seeds", "0", "--training.lr", "0.1"]) == 2
    assert "a run of other settings is at out/rate-0" in capsys.readouterr().err
    assert main(["compare", "tmaze", *SMALL, *MODELS, "--seeds", "0", "--episodes", "13"]) == 2
    assert "out/data holds other episodes" in capsys.readouterr().err


def test_data_say_what_they_were_recorded_with(tmp_path):
    """Six steps an episode: what they are tried at, and the length of an evaluation's episodes."""
    collect(tmp_path / "set", task("associative-retrieval"), 4, options={"length": 6})
    flags = ["--data", "set", "--models", "bc-lstm", "--seeds", "0", *SMALL[SMALL.index("--model.d-model") :]]
    flags = [*flags[: flags.index("--at")], "--output", "out", "--training.updates", "1"]
    assert main(["compare", "associative-retrieval", *flags]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [cell["at"] for cell in results["summary"]] == [6, 12, 24]
    assert not (tmp_path / "out" / "data").exists()


def test_an_interrupted_comparison_goes_on(tmp_path, capsys, monkeypatch):
    update = Trainer._one_update

    def stop(self, *arguments):
        update(self, *arguments)
        self.interrupted = True

    monkeypatch.setattr(Trainer, "_one_update", stop)
    command = ["compare", "tmaze", *SMALL, "--models", "rate", "--seeds", "0"]
    assert main(command) == 130
    assert "interrupted, out/rate-0 is saved" in capsys.readouterr().err
    monkeypatch.setattr(Trainer, "_one_update", update)
    assert main(command) == 0
    assert "updates 1 to 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "rate"], "name a task first"),
        (["chess"], "task 'chess' is not known"),
        (["tmaze", "--models", "mamba"], "mamba"),
        (["tmaze", "--models", "rate", "rate"], "models must be at least one, each named once"),
        (["tmaze", "--seeds", "-1"], "seeds must not be negative, got (-1,)"),
        (["popgym-RepeatFirstEasy", "--at", "3"], "at needs a task with an axis"),
        (["tmaze", "--preset", "huge"], "--preset must be one of small, paper, "),
        (["tmaze", "--options", "size=3"], "tmaze has no option 'size'"),
    ],
)
def test_errors_are_one_line(arguments, said, capsys, tmp_path):
    assert main(["compare", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("rate compare: ") and said in err and err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_intervals_are_students():
    """Of 1, 2, 3: the deviation is 1, its error 1 / sqrt(3), and t(2) at 97.5 % is 4.303."""
    trial = {"at": None, "measure": "return", "part": "", "paper": None}
    results = [RunResult("rate", seed, 1, 1, 1.0, (trial | {"mean": seed + 1.0},)) for seed in range(3)]
    (cell,) = summarise(results)
    assert cell.mean == 2 and cell.half == pytest.approx(2.4843, abs=1e-4)
    assert summarise(results[:1])[0].half is None and str(summarise(results[:1])[0]) == "1.00"


def test_where_models_are_tried():
    assert places(task("associative-retrieval"), 15) == (15, 30, 60)
    assert places(task("minigrid-memory"), 11) == (11, 21, 41)
    assert [trial["corridor_length"] for trial in _plan().trials()] == [3]  # the run's own eval_corridor
    assert [trial["corridor_length"] for trial in _plan(at=(4, 9)).trials()] == [4, 9]
    plan = _plan(task="popgym-RepeatFirstEasy")
    assert plan.trials() == [{}] and plan.trained is None


def test_what_the_paper_calls_them():
    """Its DT reads all segments, a third of the steps on POPGym."""
    assert [paper_name(model, "tmaze") for model in ("rate", "dt", "dt-long")] == ["RATE", "", "DT"]
    assert [paper_name(model, "popgym") for model in ("bc-lstm", "dt", "dt-long")] == ["BC-LSTM", "DT", ""]


@pytest.mark.parametrize(
    ("name", "options", "part", "value"),
    [
        ("vizdoom-two-colors", {}, "red", 38.2),  # Table 5, and another number in an image
        ("tmaze", {"corridor_length": 898}, "", 0.9),  # the same in Tables 5 and 6
        ("mujoco-hopper", {}, "", None),  # of three data sets
        ("popgym-RepeatFirstEasy", {}, "", 1.0),
        ("associative-retrieval", {}, "", None),
    ],
)
def test_the_papers_figure_of_a_place(name, options, part, value):
    found = task(name)
    evaluation = Evaluation(np.zeros(1), np.ones(1, np.int64), None, 1.0)
    trial = Trial(found, dict(found.options) | options, 1.0, 0.0, evaluation)
    figure = _paper(trial, part, "RATE")
    assert (None if figure is None else figure.value) == value


def _cells(parts=("",), at=(None,)) -> list[Cell]:
    paper = {"value": 0.4, "spread": 0.1, "source": "Table 5"}
    return [
        Cell(model, place, "return" + (f", {part}" if part else ""), part, 0.5, 0.1, (0.4, 0.6), paper)
        for model in ("rate", "dt")
        for place in at
        for part in parts
    ]


def test_pictures_of_parts_and_of_tasks(tmp_path):
    draw(_plan(task="vizdoom-two-colors"), _cells(("", "green", "red")), tmp_path / "parts.png")
    plans = [_plan(task=f"popgym-{name}") for name in ("RepeatFirstEasy", "AutoencodeEasy")]
    draw_tasks(plans, {plan.task.name: _cells() for plan in plans}, tmp_path / "tasks.png")
    for name in ("parts.png", "tasks.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_paper_stands_in_the_table():
    trial = {"at": None, "measure": "return", "part": "", "mean": 0.9}
    paper = {"value": 1.0, "spread": 0.0, "source": "Table 9"}
    plan = _plan(task="popgym-RepeatFirstEasy", seeds=(0,))
    results = [
        RunResult("rate", 0, 10, 5, 60.0, (trial | {"paper": paper},)),
        RunResult("dt", 0, 10, 5, 30.0, (trial | {"paper": None},)),
    ]
    table = to_markdown(plan, ["popgym-RepeatFirstEasy"], results)
    assert (
        "| rate | 0.90 (paper: 1 ± 0) | 10 | 1.0 min |" in table and "| dt | 0.90 | 10 | 0.5 min |" in table
    )
    assert "The paper's figures: Table 9." in table and "One seed, 100 episodes each" in table


def test_perform_says_which_run_failed_to_fit(tmp_path):
    plan = _plan(options=RunOptions(task="tmaze"), output=tmp_path)
    with pytest.raises(ValueError, match="corridor"):
        perform(plan)
