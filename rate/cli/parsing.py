"""Command lines as dataclasses, by tyro, with errors of one line as all others have."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import tyro

if TYPE_CHECKING:
    from rate.envs import Task

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


def task_options(task: Task, pairs: Sequence[str]) -> dict[str, Any]:
    """A task's options from ``NAME=VALUE`` texts: numbers, true, false, null and lists as JSON has them, else text.

    Raises:
        ValueError: for a text without ``=``, or an option the task does not have.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--options must be NAME=VALUE, got {pair!r}")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    task.settings(options)
    return options


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
