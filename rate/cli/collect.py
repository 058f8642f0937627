"""``rate collect``: expert episodes as a Minari data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from rate.cli.parsing import parse


@dataclass
class Collect:
    """Record episodes of a scripted expert as a Minari data set."""

    task: Annotated[Literal["tmaze"], tyro.conf.Positional]
    """The task whose expert is recorded."""
    output: str = "tmaze/expert-v0"
    """Minari id (kept where Minari keeps its data sets), or a folder."""
    episodes: int = 1000
    """Episodes to record."""
    corridor: tuple[int, ...] = tuple(range(1, 25))
    """Corridor lengths; each episode draws one."""
    seed: int = 0
    """Of the environments."""
    overwrite: bool = False
    """Replace a data set of the same name."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Collect, "rate collect", arguments)
    from rate.data import collect_tmaze

    path = collect_tmaze(
        options.output, options.episodes, options.corridor, seed=options.seed, overwrite=options.overwrite
    )
    print(f"{options.episodes} episodes in {path}")
    print(f"train on them: rate train --dataset {options.output}")
    return 0
