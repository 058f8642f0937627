"""The runs of a comparison: each trained once and tried once, however often the comparison is started."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rate import runs
from rate.comparison.plan import Plan
from rate.config import Family
from rate.data import collect, collect_tmaze
from rate.envs import Figure
from rate.persistence import write_text
from rate.protocol import Trial, try_task
from rate.training import checkpoint
from rate.training import run as training_run
from rate.training.options import RunOptions

_ASKED, _TRIALS = "compared.json", "trials.json"


class Interrupted(Exception):
    """Ctrl-C ended the training of a run early; it is saved."""


@dataclass(frozen=True)
class RunResult:
    """A trained and tried model.

    Args:
        model: its name.
        seed: of the training.
        parameters: their number.
        updates: it was trained for.
        seconds: these took, without reading data sets and making checkpoints.
        trials: one mapping per number: at, measure, part, mean, low, high, episodes, paper.
    """

    model: Family
    seed: int
    parameters: int
    updates: int
    seconds: float
    trials: tuple[Mapping[str, Any], ...]


def perform(plan: Plan, say: Callable[[str], None] = print) -> list[RunResult]:
    """Records the data, trains and tries every model with every seed.

    What is done already is not done again: data, finished runs, finished trials. An unfinished run goes on from its
    newest checkpoint.

    Raises:
        ValueError: if a run of other settings is in the way, or the settings do not fit.
        ImportError: if the task's packages are not installed.
        Interrupted: after Ctrl-C.
    """
    data = plan.options.dataset or str(_recorded(plan))
    results = []
    for seed in plan.seeds:
        for model in plan.models:
            folder = plan.folder(model, seed)
            _train(folder, plan.run(model, seed, data), say)
            results.append(_tried(plan, model, seed))
            said = ", ".join(map(_said, results[-1].trials))
            say(f"{folder}: {results[-1].updates} updates in {results[-1].seconds:.0f} s; {said}")
    return results


def _said(number: Mapping[str, Any]) -> str:
    where = "" if number["at"] is None else f" at {number['at']}"
    return f"{number['measure']}{where} {number['mean']:.3f}"


def _recorded(plan: Plan) -> Path:
    """The expert's episodes, recorded once for all runs; kept in the comparison's folder."""
    data, options = plan.output / "data", plan.options
    wanted = {
        "task": plan.task.name,
        "options": plan.task_options,
        "episodes": options.episodes,
        "corridor": list(options.corridor),
        "seed": options.training.seed,
    }
    note = plan.output / "data.json"
    if (data / "data").is_dir() and note.is_file():
        if json.loads(note.read_text()) != json.loads(json.dumps(wanted)):
            raise ValueError(f"{data} holds other episodes: name another --output, or remove {plan.output}")
        return data
    write_text(note, json.dumps(wanted, indent=2) + "\n")
    if plan.task.name == "tmaze" and not options.options:
        collect_tmaze(
            data, options.episodes, options.corridor, options.training.seed, overwrite=data.exists()
        )
    else:
        chosen = {name: value for name, value in plan.task_options.items() if name in plan.task.options}
        side_by_side = min(16, plan.task.side_by_side)
        collect(
            data,
            plan.task,
            options.episodes,
            options=chosen,
            seed=options.training.seed,
            num_envs=side_by_side,
            resume=True,
        )
    return data


def _train(folder: Path, wanted: RunOptions, say: Callable[[str], None]) -> None:
    asked = json.loads(json.dumps(asdict(wanted)))
    note = folder / _ASKED
    if (folder / "run.json").is_file():
        if not note.is_file() or json.loads(note.read_text()) != asked:
            raise ValueError(
                f"a run of other settings is at {folder}: name another --output, or remove {folder}"
            )
        if _finished(folder, wanted):
            return
        trainer = training_run.resume(folder)
    else:
        write_text(note, json.dumps(asked, indent=2) + "\n")
        trainer = training_run.start(folder, wanted)
    if trainer.finished < trainer.options.updates:
        say(f"{folder}: updates {trainer.finished} to {trainer.options.updates} on {trainer.device}")
        if not trainer.run():
            raise Interrupted(folder)


def _finished(folder: Path, wanted: RunOptions) -> bool:
    """Whether the run's last update is behind it, without opening its data; an epoch's updates are not known so."""
    saved = checkpoint.existing(folder / "checkpoints")
    return not wanted.training.epochs and bool(saved) and saved[-1].update >= wanted.training.updates


def _tried(plan: Plan, model: Family, seed: int) -> RunResult:
    folder = plan.folder(model, seed)
    updates, seconds = _spent(folder)
    asked: dict[str, Any] = {
        "updates": updates,
        "trials": plan.trials(),
        "episodes": plan.episodes,
        "eval_seed": plan.eval_seed,
        "temperature": plan.acting_temperature,
        "target_return": runs.load_options(folder).target_return,
    }
    file = folder / _TRIALS
    if file.is_file():
        kept = json.loads(file.read_text())
        kept["asked"].setdefault("temperature", plan.task.temperature)
        if kept["asked"] == json.loads(json.dumps(asked)):
            return RunResult(model, seed, kept["parameters"], updates, seconds, tuple(kept["found"]))
    trained = runs.load_model(folder)
    found: list[dict[str, Any]] = []
    for options in plan.trials():
        trial = try_task(
            trained,
            plan.task,
            plan.episodes,
            options=options,
            target_return=asked["target_return"],
            temperature=plan.acting_temperature,
            seed=plan.eval_seed,
        )
        found += _numbers(trial, model)
    parameters = sum(p.numel() for p in trained.parameters())
    kept = {"asked": asked, "parameters": parameters, "found": found}
    write_text(file, json.dumps(kept, indent=2) + "\n")
    return RunResult(model, seed, parameters, updates, seconds, tuple(found))


def _numbers(trial: Trial, model: Family) -> list[dict[str, Any]]:
    rows = []
    for measure in trial.measures():
        paper = _paper(trial, measure.part, paper_name(model, trial.task.family)) if measure.main else None
        figure = {name: getattr(paper, name) for name in ("value", "spread", "source")} if paper else None
        fields = asdict(measure)
        rows.append(
            {"at": trial.at, "measure": fields.pop("name")}
            | fields
            | {"episodes": len(trial.evaluation.returns), "paper": figure}
        )
    return rows


def _paper(trial: Trial, part: str, name: str) -> Figure | None:
    """The figure of a table of the paper; None where several differ, as they do with the data trained on."""
    found = [f for f in trial.figures(part) if f.model == name and f.source.startswith("Table")]
    return found[0] if len({figure.value for figure in found}) == 1 else None


def paper_name(model: Family, family: str) -> str:
    """What the paper calls a model. Its DT reads as many steps as RATE, but a third of them on POPGym."""
    names = {"rate": "RATE", "rmt": "RMT", "trxl": "TrXL", "bc-lstm": "BC-LSTM"}
    names["dt" if family == "popgym" else "dt-long"] = "DT"
    return names.get(model, "")


def _spent(folder: Path) -> tuple[int, float]:
    """Updates of a run and the seconds they took."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return len(rows), sum(float(row["seconds"]) for row in rows)
