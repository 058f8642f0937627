"""``rate collect``: episodes of any task as a Minari data set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rate.cli.parsing import parse

if TYPE_CHECKING:
    from rate.envs import Task

_CORRIDORS = tuple(range(1, 25))


@dataclass
class Collect:
    """Record episodes of a task's scripted expert, or of a policy of your own, as a Minari data set."""

    task: Annotated[str, tyro.conf.Positional]
    """Any task, such as tmaze, minigrid-memory or popgym-RepeatFirstEasy."""
    output: str | None = None
    """Minari id (kept where Minari keeps its data sets), or a folder; TASK/expert-v0 by default."""
    episodes: int = 1000
    """Episodes to record."""
    policy: str | None = None
    """Who plays: module:function, called with the vector environment; the task's expert by default."""
    options: tuple[str, ...] = ()
    """Of the task, each NAME=VALUE."""
    corridor: tuple[int, ...] = ()
    """T-Maze: corridor lengths, of which each episode draws one; 1 to 24 by default."""
    num_envs: int | None = None
    """Environments side by side; the data do not depend on it. By default what suits the task, at most 16."""
    processes: bool = False
    """Give each environment a process of its own; worth it where a step takes milliseconds."""
    seed: int = 0
    """Of the collection."""
    resume: bool = False
    """Go on with an interrupted collection of the same output, if there is one."""
    overwrite: bool = False
    """Replace a data set, or an interrupted collection, of the same name."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command; status 130 after Ctrl-C."""
    options = parse(Collect, "rate collect", arguments)
    from rate.envs import task

    found = task(options.task)
    if options.corridor and found.name != "tmaze":
        raise ValueError(f"--corridor is an option of tmaze, got it with {found.name}")
    who = "expert" if options.policy is None else options.policy.rpartition(":")[2].replace("_", "-")
    output = options.output or f"{found.name}/{who}-v0"
    if found.name == "tmaze" and options.policy is None and not options.options:
        from rate.data import collect_tmaze

        path = collect_tmaze(
            output,
            options.episodes,
            options.corridor or _CORRIDORS,
            seed=options.seed,
            overwrite=options.overwrite,
        )
        print(f"{options.episodes} episodes in {path}")
    elif not _play(options, found, output):
        return 130
    print(f"train on them: rate train --dataset {output}")
    return 0


def _play(options: Collect, found: Task, output: str) -> bool:
    """Records and says what was recorded; False if Ctrl-C ended it early."""
    from rate.data import collect
    from rate.envs import parse_options

    settings = parse_options(found, options.options)
    if options.corridor:
        if len(options.corridor) > 1:
            raise ValueError(f"--corridor must be one length for a policy, got {options.corridor}")
        settings["corridor_length"] = options.corridor[0]
    if options.policy is not None:
        sys.path.insert(0, str(Path.cwd()))  # a module beside the user, as python -m would find it
    try:
        made = collect(
            output,
            found,
            options.episodes,
            policy=options.policy,
            options=settings,
            seed=options.seed,
            num_envs=min(16, found.side_by_side) if options.num_envs is None else options.num_envs,
            processes=options.processes,
            resume=options.resume,
            overwrite=options.overwrite,
        )
    except KeyboardInterrupt:
        print(
            "interrupted; the finished episodes are kept: go on with the same command and --resume",
            file=sys.stderr,
        )
        return False
    success = "" if made.successes is None else f", success {made.successes.mean():.2f}"
    print(f"{options.episodes} episodes in {made.path}")
    print(
        f"return {made.returns.mean():.3f} ({made.returns.min():.3f} to {made.returns.max():.3f}), "
        f"{made.lengths.mean():.1f} steps ({made.lengths.min()} to {made.lengths.max()}){success}"
    )
    return True
