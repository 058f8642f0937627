"""``python -m bench run | compare | report``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 where a result was wrong or a version slower, or 2 for a wrong argument."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, compare, report.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="run | compare | report")
    _add_run(commands)
    _add_compare(commands)
    _add_report(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.function(options))
    except (ValueError, FileNotFoundError) as error:
        print(f"python -m bench {options.command}: {error}", file=sys.stderr)
        return 2


def _add_run(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("run", help="measure, check every answer, keep the samples")
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help="what to measure; all but tmaze by default"
    )
    parser.add_argument("--list", action="store_true", help="print the groups and leave")
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1; auto takes a GPU where there is one"
    )
    parser.add_argument(
        "--scale", choices=("tiny", "cpu", "gpu"), help="sizes; those of the device by default"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="bfloat16 on a GPU, else float32"
    )
    parser.add_argument("--size", default="", help="only sizes whose name contains this")
    parser.add_argument(
        "--variant", nargs="+", default=[], help="only variants whose name contains one of these"
    )
    parser.add_argument("--rounds", type=int, default=9, help="samples per variant")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for PyTorch's choice")
    parser.add_argument("--no-compile", action="store_true", help="leave out variants under torch.compile")
    parser.add_argument("--cold", action="store_true", help="GPU: flush the L2 cache before every call")
    parser.add_argument("--seconds", type=float, help="per group: start nothing new after this")
    parser.add_argument("--save", action="store_true", help="write under bench/results/<device>")
    parser.add_argument("--out", type=Path, help="write into this folder")
    parser.set_defaults(function=_run)


def _run(options: argparse.Namespace) -> int:
    import torch

    from bench import groups, results, runner

    if options.list:
        width = max(map(len, groups.GROUPS))
        print("\n".join(f"{name:{width}}  {what}" for name, what in groups.GROUPS.items()))
        return 0
    for name in options.groups:
        if name not in groups.GROUPS:
            raise ValueError(f"GROUP must be one of {', '.join(groups.GROUPS)}, got {name!r}")
    if options.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, got {options.rounds}")
    device = _device(options.device)
    if options.cold and device.type != "cuda":
        raise ValueError("--cold needs a GPU")
    if options.threads < 0:
        raise ValueError(f"--threads must be at least 0, got {options.threads}")
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = runner.Settings(
        device,
        options.scale or ("gpu" if device.type == "cuda" else "cpu"),
        getattr(torch, options.dtype or ("bfloat16" if device.type == "cuda" else "float32")),
        options.rounds,
        compiled=not options.no_compile,
        cold=options.cold,
        seconds=options.seconds,
        variants=tuple(options.variant),
    )
    right = True
    for name in options.groups or [name for name in groups.GROUPS if name != "tmaze"]:
        result = results.Result(name, results.machine(device), settings.record())
        folder = options.out or (result.folder() if options.save else None)
        chosen = (c for c in groups.comparisons(name, settings) if options.size in c.size)
        write = result.write if folder is not None else None
        right &= runner.run(chosen, result, settings, lambda r, f=folder, w=write: w and w(f))  # type: ignore[misc]
        if folder is not None and result.entries:
            print(f"\nwritten: {result.write(folder)}")
    return 0 if right else 1


def _add_compare(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "compare", help="whether a version is slower: two result files, commits or folders"
    )
    parser.add_argument("old", help="a results file, a commit, or a folder with the sources")
    parser.add_argument("new", help="the same kind of thing, or a commit against a folder")
    parser.add_argument("--case", nargs="+", default=[], help="only cases whose name contains one of these")
    parser.add_argument("--device", default="cpu", help="for commits and folders: where to measure")
    parser.add_argument("--scale", choices=("tiny", "cpu"), default="cpu")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of processes, one per version")
    parser.add_argument("--rounds", type=int, default=9, help="per case and pair")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads per process")
    parser.add_argument(
        "--min-effect", type=float, default=0.08, help="smallest relative difference that counts"
    )
    parser.set_defaults(function=_compare)


def _compare(options: argparse.Namespace) -> int:
    import tempfile

    from bench.compare import files, interleaved, trees

    for name in ("pairs", "rounds", "threads"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if not 0 < options.min_effect < 1:
        raise ValueError(f"--min-effect must be between 0 and 1, got {options.min_effect}")
    are_files = [Path(side).suffix == ".json" for side in (options.old, options.new)]
    if all(are_files):
        verdicts = files.compare(Path(options.old), Path(options.new), options.min_effect)
    elif any(are_files):
        raise ValueError("a results file can only be compared with another results file")
    else:
        _device(options.device)
        plan = interleaved.Plan(
            tuple(options.case),
            options.device,
            options.scale,
            options.pairs,
            options.rounds,
            options.threads,
            options.min_effect,
        )
        plan.names()
        with tempfile.TemporaryDirectory() as scratch:
            old, new = (trees.resolve(side, Path(scratch)) for side in (options.old, options.new))
            verdicts = interleaved.compare(old, new, plan)
        for note in plan.notes:
            print(f"not compared: {note}")
    print(f"{'case':44s} {'new / old':>6s}, 99 % interval")
    for verdict in verdicts:
        print(verdict.line())
    slower = [verdict.case for verdict in verdicts if verdict.word == "slower"]
    print(f"slower: {'; '.join(slower)}" if slower else "nothing is slower")
    return 1 if slower else 0


def _add_report(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "report", help="write docs/benchmarks.md, its pictures and the README's table"
    )
    parser.add_argument(
        "--add", type=Path, nargs="+", default=[], help="first keep the results of these files"
    )
    parser.set_defaults(function=_report)


def _report(options: argparse.Namespace) -> int:
    from bench.report import page

    for file in options.add:
        for path in page.add(file):
            print(f"kept: {path}")
    for path in page.write():
        print(f"written: {path}")
    return 0


def _device(name: str):  # type: ignore[no-untyped-def]
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} is not available: {str(error).splitlines()[0]}") from None
    return device
