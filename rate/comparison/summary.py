"""Over seeds: means with their intervals, as a table and as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rate.comparison.plan import Plan
from rate.comparison.runs import RunResult

_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
"""97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""


@dataclass(frozen=True)
class Cell:
    """One number of one model over its seeds.

    Args:
        model: its name.
        at: value of the task's axis, or None.
        measure: such as ``success`` or ``return, red``.
        part: of the episodes; empty for all.
        mean: over seeds, of each seed's mean over episodes.
        half: half the 95 % interval over seeds, by Student's t; None for a single seed.
        seeds: each one's mean.
        paper: the paper's figure for this model and place: value, spread and source; None if there is none.
    """

    model: str
    at: Any
    measure: str
    part: str
    mean: float
    half: float | None
    seeds: tuple[float, ...]
    paper: Mapping[str, Any] | None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.half is None else f"{self.mean:.2f} ± {self.half:.2f}"


def summarise(results: Sequence[RunResult]) -> list[Cell]:
    """A cell for each model, place and measure, in the order they were tried."""
    found: dict[tuple[Any, ...], list[float]] = {}
    papers: dict[tuple[Any, ...], Any] = {}
    for result in results:
        for trial in result.trials:
            key = (result.model, trial["at"], trial["measure"], trial["part"])
            found.setdefault(key, []).append(trial["mean"])
            papers[key] = trial["paper"]
    return [
        Cell(model, at, measure, part, float(np.mean(means)), _half(means), tuple(means), papers[key])
        for key, means in found.items()
        for model, at, measure, part in [key]
    ]


def _half(means: Sequence[float]) -> float | None:
    count = len(means)
    if count < 2:
        return None
    quantile = _STUDENT[count - 2] if count - 2 < len(_STUDENT) else 1.96 + 2.5 / (count - 1)
    return quantile * float(np.std(means, ddof=1)) / math.sqrt(count)


def to_json(plan: Plan, command: Sequence[str], results: Sequence[RunResult]) -> str:
    """Everything: settings, command line, machine, each run's numbers and the cells."""
    text = {
        "command": shlex.join(["rate", "compare", *command]),
        "comparison": plan.described(),
        "machine": machine(),
        "runs": [asdict(result) for result in results],
        "summary": [asdict(cell) for cell in summarise(results)],
    }
    return json.dumps(text, indent=2, default=str) + "\n"


def to_markdown(plan: Plan, command: Sequence[str], results: Sequence[RunResult]) -> str:
    """A table with a row for each model, what was done above it, and what the paper reports."""
    cells = summarise(results)
    columns = list(dict.fromkeys((cell.at, cell.measure) for cell in cells))
    axis = plan.task.axis
    heads = [measure if at is None else f"{measure}, {axis} {at}" for at, measure in columns]
    lines = [f"# {plan.task.name}", "", f"    {shlex.join(['rate', 'compare', *command])}", ""]
    lines += [_described(plan, results), ""]
    lines += [f"| model | {' | '.join(heads)} | parameters | training |", f"|---|{'---|' * (len(heads) + 2)}"]
    for model in plan.models:
        own = {(cell.at, cell.measure): cell for cell in cells if cell.model == model}
        shown = " | ".join(_shown(own[column]) if column in own else "" for column in columns)
        runs = [result for result in results if result.model == model]
        minutes = np.mean([result.seconds for result in runs]) / 60
        lines.append(f"| {model} | {shown} | {runs[0].parameters:,} | {minutes:.1f} min |")
    papers = [cell for cell in cells if cell.paper is not None]
    lines += ["", _papers(papers)]
    return "\n".join(lines) + "\n"


def _shown(cell: Cell) -> str:
    return str(cell) if cell.paper is None else f"{cell} (paper: {_figure(cell.paper)})"


def _figure(paper: Mapping[str, Any]) -> str:
    spread = "" if paper["spread"] is None else f" ± {paper['spread']:g}"
    return f"{paper['value']:g}{spread}"


def _papers(cells: Sequence[Cell]) -> str:
    if not cells:
        return "The paper prints no figures for these models at these places."
    sources = dict.fromkeys(str(cell.paper["source"]) for cell in cells if cell.paper is not None)
    return f"The paper's figures: {'; '.join(sources)}."


def _described(plan: Plan, results: Sequence[RunResult]) -> str:
    task, model, training = plan.task, plan.options.model, plan.options.training
    where = "" if plan.trained is None else f" {task.axis} up to {plan.trained};"
    seeds = len(plan.seeds)
    over = f"mean ± 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
    data = plan.options.dataset or f"{plan.options.episodes} episodes of the task's expert"
    target = task.target_returns[0] if plan.options.target_return is None else plan.options.target_return
    warmth = plan.acting_temperature
    act = "the likeliest actions" if warmth == 0 else f"sampled at temperature {warmth:g}"
    updates = sorted({result.updates for result in results})
    spec = machine()
    return (
        f"Trained on {data};{where} {' or '.join(map(str, updates))} updates of {training.batch_size} windows, "
        f"{model.segments} segments of {model.segment_length} steps (dt: each segment alone and "
        f"{model.segments} times the windows; dt-long: all as one). {over[0].upper()}{over[1:]}, "
        f"{plan.episodes} episodes each, target return {target:g}, {act}. "
        f"{spec['processor']}, {spec['cores']} cores, {spec['device']}, {spec['threads']} threads, "
        f"PyTorch {spec['torch']}; training is the mean over seeds, of updates alone."
    )


def machine() -> dict[str, Any]:
    """Where this runs."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if (info.is_file())
        else []
    )
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
