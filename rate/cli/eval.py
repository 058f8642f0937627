"""``rate eval``: act with a trained model, and print what it reached beside what the paper reports."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import tyro

from rate import RATE, runs
from rate.cli.parsing import parse
from rate.evaluation import Evaluation, evaluate
from rate.models import Model
from rate.persistence import write_text
from rate.protocol import Trial, largest_divisor, report, to_csv, try_task
from rate.training.trainer import resolve_device
from rate.watching import draw, watch, written_from
from rate.watching.film import check_path, still_of

if TYPE_CHECKING:
    from rate.envs import Task


@dataclass
class Evaluate:
    """Act with a trained model on its task, and count returns and successes."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder, or one with a model in it."""
    task: str | None = None
    """Any task of rate.envs; the run's own by default."""
    options: tuple[str, ...] = ()
    """Of the task, each NAME=VALUE, over those of the run."""
    at: tuple[str, ...] = ()
    """Values of the task's axis, one trial each: grid sizes, lengths."""
    corridor: tuple[int, ...] = ()
    """T-Maze: corridor lengths; by default those the run was evaluated at while training."""
    env: str | None = None
    """Any Gymnasium environment id, for models of other tasks."""
    episodes: int = 100
    """Episodes of each trial."""
    num_envs: int | None = None
    """Environments side by side at most; the largest number up to it that divides the episodes is taken."""
    target_return: float | None = None
    """The return asked for; the run's own by default."""
    temperature: float | None = None
    """0 takes the most likely action, more samples; by default as the paper does on the task, 0 with --env."""
    seed: int = 1000
    """Of the environments and of sampling."""
    device: str = "cpu"
    """Where the model acts."""
    video: Path | None = None
    """Draw an episode of the first trial as this .gif or .webp: what was seen, where the write tokens looked."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = parse(Evaluate, "rate eval", arguments)
    for option, value in (("--episodes", options.episodes), ("--num-envs", options.num_envs)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
    if options.video is not None:
        if options.env is not None:
            raise ValueError("--video draws a task's episode: use --task in place of --env")
        check_path(options.video)
    model = runs.load_model(options.run, resolve_device(options.device))
    asked = runs.load_options(options.run) if (options.run / "run.json").is_file() else None
    if options.target_return is None and asked is not None:
        options.target_return = asked.target_return
    if options.env is not None:
        print(_line(options.env, _in_environment(options, model)))
        return 0
    from rate.envs import parse_options, task

    name = options.task or ("tmaze" if options.corridor else asked.task if asked else None)
    if name is None:
        raise ValueError("name what to act in: --task NAME, --corridor LENGTHS for T-Maze, or --env ID")
    found = task(name)
    own = asked.options if asked is not None and asked.task == found.name else ()
    settings = parse_options(found, [*own, *options.options])
    if options.corridor and (options.at or found.name != "tmaze"):
        other = "--at" if options.at else f"--task {found.name}"
        raise ValueError(f"--corridor does not go with {other}")
    if found.name == "tmaze" and not options.at:
        named = "corridor_length" in parse_options(found, options.options)
        corridors = options.corridor or (asked.eval_corridor if asked and not named else ())
        corridors = corridors or (found.settings(settings)["corridor_length"],)
        _corridors(options, model, settings, corridors)
        first = {"corridor_length": corridors[0]}
    else:
        first = _trials(options, model, found, settings)
    if asked is not None:
        from rate.hub import write_card

        write_card(options.run)
    if options.video is not None:
        _film(options, model, found, settings | first)
    return 0


def _try(options: Evaluate, model: Model, found: Task, settings: dict[str, Any]) -> Trial:
    return try_task(
        model,
        found,
        options.episodes,
        options=settings,
        target_return=options.target_return,
        temperature=options.temperature,
        num_envs=options.num_envs,
        seed=options.seed,
    )


def _trials(options: Evaluate, model: Model, found: Task, settings: dict[str, Any]) -> dict[str, Any]:
    """One trial for each value of the task's axis that was named, or one; returns the first one's place."""
    from rate.envs import parse_options

    if options.at and found.axis is None:
        raise ValueError(f"--at needs a task with an axis, {found.name} has none")
    places = [parse_options(found, [f"{found.axis}={value}"]) for value in options.at] or [{}]
    trials = []
    for place in places:
        trials.append(_try(options, model, found, settings | place))
        print(report(trials[-1]), flush=True)
    write_text(options.run / "evaluation.csv", to_csv(trials))
    return places[0]


def _film(options: Evaluate, model: Model, found: Task, settings: dict[str, Any]) -> None:
    """Plays one more episode, draws it, and says what its segments were written from."""
    assert options.video is not None
    watched = watch(
        model,
        found,
        options=settings,
        target_return=options.target_return,
        temperature=options.temperature,
        seed=options.seed,
    )
    looks = []
    if isinstance(model, RATE) and model.config.num_memory:
        device = next(model.parameters()).device
        read = (watched.observations, watched.actions, watched.returns_to_go)
        looks = written_from(model, *(torch.from_numpy(array).to(device) for array in read))
    for number, look in enumerate(looks, start=1):
        steps = ", ".join(f"step {step + 1} {share:.0%}" for step, share in look.most(3))
        kept = f"; at earlier memory {look.remembered.mean():.0%}" if look.first else ""
        print(f"segment {number}: the write tokens looked at {steps}{kept}")
    if not looks:
        print(
            "nothing was written into memory: the model has none, or the episode ended in its first segment"
        )
    draw(watched, looks, options.video, f"{options.run.name}: {found.name}")
    print(f"drawn: {options.video} and {still_of(options.video)}")


def _corridors(options: Evaluate, model: Model, settings: dict[str, Any], corridors: Sequence[int]) -> None:
    """T-Maze: a line for each corridor, and a picture."""
    from rate.envs import task

    rows = []
    print(f"{'corridor':>10s} {'success':>8s} {'95%':>12s} {'return':>8s} {'episodes':>9s} {'steps/s':>9s}")
    for corridor in corridors:
        trial = _try(options, model, task("tmaze"), settings | {"corridor_length": corridor})
        success, found = trial.measures()[0], trial.evaluation
        print(
            f"{corridor:10d} {success.mean:8.2f} {f'{success.low:.2f} - {success.high:.2f}':>12s} "
            f"{found.returns.mean():8.2f} {len(found.returns):9d} {found.lengths.sum() / found.seconds:9.0f}"
            + "".join(f"   paper: {figure.model} {figure}" for figure in trial.figures()),
            flush=True,
        )
        rows.append({"corridor": corridor, "success": success.mean, "episodes": len(found.returns)})
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(options.run / "evaluation.csv", text.getvalue())
    from rate.plotting import draw_success

    picture = options.run / "success.png"
    draw_success([options.run], picture)
    print(f"drawn: {picture}")


def _in_environment(options: Evaluate, model: Model) -> Evaluation:
    """Episodes in any environment that Gymnasium knows."""
    import gymnasium

    import rate.envs  # noqa: F401 - registers ours

    count = largest_divisor(options.episodes, options.num_envs or 100)
    try:
        env = gymnasium.make_vec(str(options.env), num_envs=count)
    except gymnasium.error.Error as error:
        raise ValueError(f"--env {options.env}: {error}") from None
    target = 1.0 if options.target_return is None else options.target_return
    try:
        return evaluate(
            model, env, options.episodes, target, seed=options.seed, temperature=options.temperature or 0.0
        )
    finally:
        env.close()


def _line(name: str, result: Evaluation) -> str:
    success = "" if result.successes is None else f", success {result.success_rate:.2f}"
    return (
        f"{name}: return {result.returns.mean():.3f} +- {result.returns.std():.3f} over {len(result.returns)} "
        f"episodes of {result.lengths.mean():.0f} steps{success}"
    )
