"""``rate eval``: act with a trained model, print a table, draw success against corridor length."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rate import runs
from rate.cli.parsing import parse
from rate.evaluation import Evaluation, evaluate
from rate.persistence import write_text
from rate.training.trainer import resolve_device


@dataclass
class Evaluate:
    """Act with a trained model and count returns and successes."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder, or one with a model in it."""
    corridor: tuple[int, ...] = ()
    """T-Maze: corridor lengths; by default those the run was evaluated at while training."""
    env: str | None = None
    """Any Gymnasium environment id, for models of other tasks."""
    episodes: int = 100
    """Episodes, per corridor length."""
    num_envs: int = 100
    """Environments stepped together at most; the largest number up to it that divides the episodes is taken."""
    target_return: float | None = None
    """The return asked for; the run's own by default."""
    temperature: float = 0.0
    """0 takes the most likely action, more samples."""
    seed: int = 1000
    """Of the environments and of sampling."""
    device: str = "cpu"
    """Where the model acts."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Evaluate, "rate eval", arguments)
    for name, value in (("--episodes", options.episodes), ("--num-envs", options.num_envs)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    model = runs.load_model(options.run, resolve_device(options.device))
    has_run = (options.run / "run.json").is_file()
    asked = runs.load_options(options.run) if has_run else None
    target = (
        options.target_return
        if options.target_return is not None
        else (asked.target_return if asked else 1.0)
    )
    at_most = min(options.num_envs, options.episodes)
    num_envs = max(n for n in range(1, at_most + 1) if options.episodes % n == 0)
    if options.env is not None:
        import gymnasium

        import rate.envs  # noqa: F401 - registers ours

        try:
            env = gymnasium.make_vec(options.env, num_envs=num_envs)
        except gymnasium.error.Error as error:
            raise ValueError(f"--env {options.env}: {error}") from None
        result = evaluate(
            model, env, options.episodes, target, seed=options.seed, temperature=options.temperature
        )
        env.close()
        print(_line(options.env, result))
        return 0
    corridors = options.corridor or (asked.eval_corridor if asked else ())
    if not corridors:
        raise ValueError("name what to act in: --corridor LENGTHS for T-Maze, or --env ID")
    _evaluate_tmaze(options, model, corridors, num_envs, target)
    return 0


def _evaluate_tmaze(options: Evaluate, model, corridors, num_envs: int, target: float) -> None:  # type: ignore[no-untyped-def]
    from rate.envs import TMazeVector

    rows = []
    print(f"{'corridor':>10s} {'success':>8s} {'return':>8s} {'episodes':>9s} {'steps/s':>9s}")
    for corridor in corridors:
        env = TMazeVector(num_envs, corridor_length=corridor, balanced_goals=True)
        result = evaluate(
            model, env, options.episodes, target, seed=options.seed, temperature=options.temperature
        )
        print(
            f"{corridor:10d} {result.success_rate:8.2f} {result.returns.mean():8.2f} {options.episodes:9d} "
            f"{result.lengths.sum() / result.seconds:9.0f}",
            flush=True,
        )
        rows.append({"corridor": corridor, "success": result.success_rate, "episodes": options.episodes})
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(options.run / "evaluation.csv", text.getvalue())
    from rate.plotting import draw_success

    picture = options.run / "success.png"
    draw_success([options.run], picture)
    print(f"drawn: {picture}")


def _line(name: str, result: Evaluation) -> str:
    success = "" if result.successes is None else f", success {result.success_rate:.2f}"
    return (
        f"{name}: return {result.returns.mean():.3f} +- {result.returns.std():.3f} over {len(result.returns)} "
        f"episodes of {result.lengths.mean():.0f} steps{success}"
    )
