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


def _message(box: str) -> str:
    """What tyro's box of several lines says: the lines between its first two rules."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()]
    rules = [index for index, line in enumerate(lines) if line and not line.strip("-─")]
    said = lines[rules[0] + 1 : rules[1]] if len(rules) > 1 else lines
    return " ".join(" ".join(said).split())
