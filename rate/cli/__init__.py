"""The command ``rate``: collect, data, train, compare, eval, plot, push, info."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

_COMMANDS = {
    "collect": "record expert episodes as a Minari data set",
    "data": "show what is in a data set, or convert it to Minari",
    "train": "train a model on a task or a data set",
    "compare": "train several models with several seeds, and put their scores side by side",
    "eval": "act with a trained model and count successes",
    "plot": "draw learning curves and success against corridor length",
    "push": "share a run's model on the Hugging Face Hub",
    "info": "what runs on this machine, and why the rest does not",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status; errors of use are one line on stderr and status 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    name, rest = arguments[0], [argument for argument in arguments[1:] if argument != "--traceback"]
    if name not in _COMMANDS:
        print(f"rate: command must be one of {', '.join(_COMMANDS)}, got {name!r}", file=sys.stderr)
        return 2
    try:
        return _load(name)(rest)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        if "--traceback" in arguments:
            raise
        print(f"rate {name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"rate {name}: interrupted", file=sys.stderr)
        return 130


def _load(name: str) -> Callable[[Sequence[str]], int]:
    """The command's function; its module is imported only when it is used."""
    from importlib import import_module

    return import_module(f"rate.cli.{name}").main


def _usage() -> str:
    lines = ["usage: rate COMMAND [options]      rate COMMAND --help for the options", ""]
    lines += [f"  {name:9s}{text}" for name, text in _COMMANDS.items()]
    lines += [
        "",
        "  rate train tmaze                              a model that needs memory, in about two minutes on a CPU",
        "  rate eval runs/tmaze-0 --corridor 10 100 1000 how far its memory carries",
    ]
    return "\n".join(lines)
