"""Command lines as dataclasses, by tyro, with errors of one line as all others have."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def parse(command: type[T], prog: str, arguments: Sequence[str], **settings: Any) -> T:
    """The options of a command; see ``tyro.cli`` for ``settings``.

    Raises:
        ValueError: where the arguments do not fit.
        SystemExit: after printing the help that was asked for.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(command, prog=prog, args=list(arguments), **settings)
    except SystemExit as ended:
        if not ended.code:
            raise
        raise ValueError(f"{_message(said.getvalue())} (see {prog} --help)") from None


def _message(said: str) -> str:
    """The error alone, on one line: tyro says title, error and where the help is, in a box or, in ASCII, with rules."""
    parts: list[list[str]] = [[]]
    for line in said.splitlines():
        text = line.strip("│ ")
        if text.startswith(("╭", "╰")):
            continue
        if text and not text.strip("-─"):
            parts.append([])
        else:
            parts[-1].append(text)
    title_within = "╭" not in said and len(parts) > 1
    return " ".join(" ".join(parts[1 if title_within else 0]).split())
