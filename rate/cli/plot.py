"""``rate plot``: pictures of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rate.cli.parsing import parse


@dataclass
class Plot:
    """Draw learning curves (and success against corridor length, where runs were evaluated)."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs."""
    output: Path | None = None
    """Folder of the pictures; the first run's by default."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Plot, "rate plot", arguments)
    if not options.runs:
        raise ValueError("name at least one run's folder")
    from rate.plotting import draw_curves, draw_success

    output = options.output or options.runs[0]
    curves = output / "curves.png"
    draw_curves(options.runs, curves)
    print(f"drawn: {curves}")
    evaluated = [run for run in options.runs if _has_corridors(run / "evaluation.csv")]
    if evaluated:
        success = output / "success.png"
        draw_success(evaluated, success)
        print(f"drawn: {success}")
    return 0


def _has_corridors(evaluation: Path) -> bool:
    """Whether an evaluation is there and is that of a T-Maze."""
    return evaluation.is_file() and evaluation.read_text().startswith("corridor,")
