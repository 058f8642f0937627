"""The picture the paper draws for a task: a curve along its axis, or bars, of parts and tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rate.comparison.plan import Plan
from rate.comparison.summary import Cell
from rate.plotting import colours, new_figure, save_figure

_CHANCE = {"tmaze": 0.5, "associative-retrieval": 0.5, "minigrid-memory": 0.5}
_PARTS = {"": "all", "red": "red pillar", "green": "green pillar"}


def draw(plan: Plan, cells: Sequence[Cell], picture: Path) -> None:
    """The task's score: along its axis where it was tried at several values, else as bars, one group per part."""
    score = [cell for cell in cells if cell.measure.partition(",")[0] == plan.task.score.label]
    if len({cell.at for cell in score}) > 1:
        _curve(plan, [cell for cell in score if not cell.part], picture)
    else:
        groups = {_PARTS.get(part, part): [c for c in score if c.part == part] for part in _parts(score)}
        if len(groups) == 1:
            groups = {plan.task.name: score}
        _bars(groups, plan.models, plan.task.score.label, plan.task.name, picture)


def draw_tasks(plans: Sequence[Plan], cells: Mapping[str, Sequence[Cell]], picture: Path) -> None:
    """Bars of several tasks without parts, one group per task."""
    groups = {
        plan.task.name.removeprefix("popgym-"): [c for c in cells[plan.task.name] if not c.part]
        for plan in plans
    }
    label = plans[0].task.score.label
    _bars(groups, plans[0].models, label, plans[0].task.family, picture)


def _parts(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.part for cell in cells))


def _curve(plan: Plan, cells: Sequence[Cell], picture: Path) -> None:
    figure, axes = new_figure()
    for i, (model, colour) in enumerate(zip(plan.models, colours(len(plan.models)), strict=True)):
        own = sorted((cell for cell in cells if cell.model == model), key=lambda cell: cell.at)
        # Side by side, as intervals of models that reach the same would hide each other.
        x = np.array([cell.at for cell in own]) * 1.012 ** (i - (len(plan.models) - 1) / 2)
        y = np.array([cell.mean for cell in own])
        half = None if own[0].half is None else np.array([cell.half for cell in own])
        axes.errorbar(x, y, half, fmt="o-", color=colour, label=model, markersize=5, capsize=3, elinewidth=1)
        for place, cell in zip(x, own, strict=True):
            axes.plot([place] * len(cell.seeds), cell.seeds, "_", color=colour, markersize=9, alpha=0.6)
        told = [cell for cell in own if cell.paper is not None]
        if told:
            values = [_value(cell) for cell in told]
            axes.plot([cell.at for cell in told], values, "x", color=colour, label=f"{model}, paper")
    ticks = sorted({cell.at for cell in cells})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.axvline(plan.trained, color="0.7", linewidth=1, zorder=0)
    axes.annotate(
        "trained", (plan.trained, 0.02), xycoords=("data", "axes fraction"), color="0.5", rotation=90,
        ha="right", va="bottom",
    )  # fmt: skip
    axes.set(xlabel=str(plan.task.axis).replace("_", " "), ylabel=plan.task.score.label)
    if plan.task.score.kind == "success":
        axes.set_ylim(-0.02, 1.05)
    chance = _CHANCE.get(plan.task.name)
    if chance is not None:
        axes.axhline(chance, color="0.6", linestyle=":", linewidth=1)
    axes.set_title(_title(plan.task.name, plan.seeds))
    axes.legend(loc="best", framealpha=0.8, edgecolor="none")
    save_figure(figure, picture)


def _bars(
    groups: Mapping[str, Sequence[Cell]], models: Sequence[str], label: str, title: str, picture: Path
) -> None:
    """A group of bars, one per model; the paper's figures as crosses."""
    figure, axes = new_figure()
    width = 0.8 / len(models)
    told = False
    for i, (model, colour) in enumerate(zip(models, colours(len(models)), strict=True)):
        for g, cells in enumerate(groups.values()):
            for cell in (cell for cell in cells if cell.model == model):
                x = g + (i - (len(models) - 1) / 2) * width
                axes.bar(x, cell.mean, 0.92 * width, color=colour, label=model if not g else None)
                if cell.half is not None:
                    axes.errorbar(x, cell.mean, cell.half, color="0.2", linewidth=1, capsize=3)
                if cell.paper is not None:
                    mark = None if told else "paper"
                    axes.plot(x, _value(cell), "x", color="black", markersize=8, label=mark)
                    told = True
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set_axisbelow(True)  # the grid behind the bars
    # A single group is what the title says.
    axes.set_xticks(range(len(groups)), list(groups)) if len(groups) > 1 else axes.set_xticks([])
    axes.set(ylabel=label)
    seeds = next(iter(next(iter(groups.values())))).seeds
    axes.set_title(_title(title, seeds))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    save_figure(figure, picture)


def _value(cell: Cell) -> float:
    assert cell.paper is not None
    return float(cell.paper["value"])


def _title(name: str, seeds: Sequence[Any]) -> str:
    return f"{name}: mean and 95 % interval over {len(seeds)} seeds" if len(seeds) > 1 else name
