"""``rate compare``: several models on the same task and data, several seeds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from rate.cli.parsing import parse
from rate.config import Family
from rate.persistence import write_text
from rate.presets import KINDS, PRESETS, preset_of
from rate.training.options import RunOptions


@dataclass(frozen=True)
class Compare(RunOptions):
    """Train several models on a task with several seeds, try them alike, and write a table and a picture.

    What was done already is not done again: start it anew after an interruption, or with more models or seeds.
    """

    tasks: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Tasks of rate.envs; several make a picture with a group of bars for each."""
    task: Annotated[None, tyro.conf.Suppress] = None
    models: tuple[Family, ...] = ("rate", "dt", "bc-lstm")
    """What to train: rate, dt (each segment alone), dt-long (all segments as one), rmt, trxl, gtrxl, bc-lstm."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of parameters, batches and dropout; the data are the same for all."""
    preset: str = "small"
    """Named settings to start from."""
    output: Path | None = None
    """Folder of runs, data and results; compare/TASK by default. With several tasks, of their folders."""
    at: tuple[int, ...] = ()
    """Values of the task's axis to try the models at; the trained one, twice and four times it by default."""
    eval_seed: int = 1000
    """Of the environments and of sampling in the trials."""
    temperature: float | None = None
    """Of the trials: 0 takes the most likely action, more samples; by default as the paper does on the task."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; status 130 after Ctrl-C."""
    names = _tasks(arguments)
    from rate.comparison import Interrupted, Plan, perform, summarise
    from rate.comparison.picture import draw, draw_tasks
    from rate.comparison.summary import to_json, to_markdown
    from rate.training.run import episodes, resolved

    plans: list[Plan] = []
    for name in names or (None,):
        options = parse(
            Compare,
            "rate compare",
            arguments,
            default=_defaults(arguments, name),
            description=f"{Compare.__doc__}\n\nPresets: {', '.join((*KINDS, *PRESETS))}.",
            config=(tyro.conf.FlagConversionOff,),
        )
        settings = {field.name: getattr(options, field.name) for field in fields(RunOptions)} | {"task": name}
        shared = RunOptions(**settings)
        if shared.dataset is not None:  # the data say which options of the task they were recorded with
            shared = resolved(shared, episodes(Path(), shared))
        base = options.output or Path("compare")
        output = base if options.output is not None and len(names) == 1 else base / str(name)
        plans.append(
            Plan(
                shared,
                options.models,
                options.seeds,
                output,
                options.at,
                options.training.eval_episodes,
                options.eval_seed,
                options.temperature,
            )
        )
    cells = {}
    for plan in plans:
        try:
            results = perform(plan)
        except Interrupted as run:
            print(f"interrupted, {run} is saved; go on with the same command", file=sys.stderr)
            return 130
        cells[plan.task.name] = summarise(results)
        write_text(plan.output / "results.json", to_json(plan, arguments, results))
        table = to_markdown(plan, arguments, results)
        write_text(plan.output / "results.md", table)
        draw(plan, cells[plan.task.name], plan.output / "comparison.png")
        print(table)
        print(f"written: {plan.output}/results.json, results.md and comparison.png")
    if len(plans) > 1:
        picture = plans[0].output.parent / "comparison.png"
        draw_tasks(plans, cells, picture)
        print(f"drawn: {picture}")
    return 0


def _tasks(arguments: Sequence[str]) -> list[str]:
    """The names before the first option."""
    first = next((i for i, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    if not first and not {"-h", "--help"} & set(arguments):
        raise ValueError("name a task first, as in rate compare tmaze --models rate dt")
    return list(arguments[:first])


def _defaults(arguments: Sequence[str], name: str | None) -> Compare:
    """The preset's settings for the task."""
    settings = preset_of(name, arguments)
    fitting = {field.name: getattr(settings, field.name) for field in fields(RunOptions)}
    return Compare(**fitting | {"task": None})
