"""``rate data``: what is in a data set, and data sets as Minari has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rate.cli.parsing import parse

_COMMANDS = {
    "info": "layout, spaces, lengths, returns and actions of a data set; a look at an episode",
    "convert": "write a data set as a Minari data set",
}


@dataclass
class _Set:
    path: Annotated[str, tyro.conf.Positional]
    """A file or folder of any layout that is known, or a Minari id."""


@dataclass
class _Reading:
    limit: int = 0
    """Read the first episodes only, of at most this many steps; 0 for all (DQN replay: 500,000)."""
    num_actions: int = 0
    """Discrete actions of the environment, where the files do not say; 0 counts to the largest they hold."""


@dataclass
class Info(_Reading, _Set):
    """Show what is in a data set, and check it."""

    episode: int | None = None
    """Look at this episode as well, counted from 0, from the end if negative."""
    rows: int = 5
    """Steps shown from its beginning and its end."""
    picture: bool = False
    """Draw frames of the episode (the first one, without --episode) side by side as a PNG."""
    output: Path | None = None
    """The PNG; SET-episode-N.png in this folder by default."""
    check: bool = False
    """Read images as well, to check them; everything else is checked anyway."""


@dataclass
class Convert(_Reading, _Set):
    """Write a data set as a Minari data set, images without loss."""

    output: Annotated[str, tyro.conf.Positional] = ""
    """Minari id (kept where Minari keeps its data sets), or a folder."""
    overwrite: bool = False
    """Replace a Minari data set of the same name."""


def main(arguments: Sequence[str]) -> int:
    """Runs ``rate data info`` or ``rate data convert``."""
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print("usage: rate data COMMAND [options]      rate data COMMAND --help for the options\n")
        print("\n".join(f"  {command:9s}{text}" for command, text in _COMMANDS.items()))
        return 0
    if name not in _COMMANDS:
        raise ValueError(f"data takes one of the commands {', '.join(_COMMANDS)}, got {name!r}")
    if name == "info":
        return _info(parse(Info, "rate data info", arguments[1:]))
    return _convert(parse(Convert, "rate data convert", arguments[1:]))


def _info(options: Info) -> int:
    from rate.data.picture import draw_strip
    from rate.data.report import default_picture, describe, describe_episode
    from rate.data.summary import summarise

    if options.rows < 1:
        raise ValueError(f"--rows must be at least 1, got {options.rows}")
    source = _open(options, options.path)
    looked_at = options.episode
    if looked_at is not None and not -len(source) <= looked_at < len(source):
        raise ValueError(f"--episode must be 0 to {len(source) - 1}, got {looked_at}")
    for line in describe(source, summarise(source, images=options.check, over=_progress)):
        print(line)
    if looked_at is not None:
        print()
        print("\n".join(describe_episode(source, looked_at, options.rows)))
    if options.picture or options.output is not None:
        shown = looked_at or 0
        picture = options.output or default_picture(source, shown)
        steps = draw_strip(source[shown], picture)
        print(f"drawn: {picture}, steps {', '.join(map(str, steps))}")
    return 0


def _convert(options: Convert) -> int:
    from rate.data import write_minari

    if not options.output:
        raise ValueError("name where to write: rate data convert PATH OUTPUT")
    source = _open(options, options.path)
    path = write_minari(
        options.output,
        (source.recording(index) for index in _progress(range(len(source)))),
        observation_space=source.observation_space.to_space(),
        action_space=source.action_space.to_space(),
        algorithm_name="unknown",
        description=f"{source.layout} {source.path.name}, converted by rate data convert",
        overwrite=options.overwrite,
    )
    print(f"{len(source):,} episodes in {path}")
    return 0


def _open(options: _Reading, path: str):  # type: ignore[no-untyped-def]
    from rate.data import SpaceSpec, open_source

    for name in ("limit", "num_actions"):
        if getattr(options, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} must not be negative, got {getattr(options, name)}")
    given = SpaceSpec("discrete", (), n=options.num_actions) if options.num_actions else None
    return open_source(path, limit=options.limit or None, action_space=given)


def _progress(numbers: Iterable[int]) -> Iterable[int]:
    """A bar on stderr where it takes more than moments."""
    from tqdm import tqdm

    return tqdm(numbers, unit="episode", delay=2, leave=False)
