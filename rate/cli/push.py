"""``rate push``: a run's model to the Hugging Face Hub, with a card made from the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rate import runs
from rate.cli.parsing import parse


@dataclass
class Push:
    """Push a run's model to the Hugging Face Hub, with a card, its evaluation and pictures.

    Log in first (hf auth login), or set HF_TOKEN.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder, or one with a model in it."""
    repository: Annotated[str, tyro.conf.Positional]
    """Where to: user/name. It is made if it is not there."""
    private: bool = False
    """Make a new repository private."""
    branch: str | None = None
    """The branch; main by default."""
    message: str = "A RATE model"
    """Of the commit."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Push, "rate push", arguments)
    model = runs.load_model(options.run)
    found = model.push_to_hub(
        options.repository,
        run=options.run,
        private=options.private or None,
        branch=options.branch,
        commit_message=options.message,
    )
    print(f"pushed: {found}")
    print(f"load it: {type(model).__name__}.from_pretrained({options.repository!r})")
    return 0
