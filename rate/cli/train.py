"""``rate train``: a new run, or one that goes on."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from rate.cli.parsing import parse
from rate.presets import KINDS, PRESETS, preset_of
from rate.training.options import RunOptions


@dataclass(frozen=True)
class Train(RunOptions):
    """Train a model on a task or a data set.

    A task without a data set is recorded first: --episodes of its expert, kept in the run's folder. With a data set, a
    task says what the model is tried on; sets of rate collect say it themselves. Defaults are those of the preset: the
    task's own, unless --preset names another.
    """

    task: Annotated[str | None, tyro.conf.Positional] = None
    """Any task of rate.envs, such as tmaze or minigrid-memory; may be left out with --dataset."""
    run: Path | None = None
    """The run's folder; runs/<task>-<seed> by default."""
    resume: Path | None = None
    """Continue the run in this folder from its newest checkpoint; its own settings apply."""
    preset: str | None = None
    """Named settings to start from."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; status 130 after Ctrl-C."""
    options = parse(
        Train,
        "rate train",
        arguments,
        default=_defaults(arguments),
        description=f"{inspect.getdoc(Train)}\n\nPresets: {', '.join((*KINDS, *PRESETS))}.",
        config=(tyro.conf.FlagConversionOff,),
    )
    from rate.hub import write_card
    from rate.training import run as training_run

    if options.resume is not None:
        folder = options.resume
        trainer = training_run.resume(folder)
    else:
        folder = options.run or Path("runs") / f"{_name(options)}-{options.training.seed}"
        settings = {field.name: getattr(options, field.name) for field in fields(RunOptions)}
        trainer = training_run.start(folder, RunOptions(**settings))
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(
        f"{folder}: {parameters:,} parameters, {len(trainer.windows)} windows, "
        f"updates {trainer.finished} to {trainer.options.updates} on {trainer.device}"
    )
    started = time.perf_counter()
    if not trainer.run():
        print(f"interrupted and saved; continue with: rate train --resume {folder}", file=sys.stderr)
        return 130
    write_card(folder)
    print(f"trained in {time.perf_counter() - started:.0f} s; the model is in {folder}")
    return 0


def _name(options: Train) -> str:
    return options.task or Path(options.dataset or "run").name


def _defaults(arguments: Sequence[str]) -> Train:
    """The preset's settings."""
    task = arguments[0] if arguments and not arguments[0].startswith("-") else None
    settings = preset_of(task, arguments)
    fitting = {field.name: getattr(settings, field.name) for field in fields(RunOptions)}
    return Train(**fitting | {"task": None})
