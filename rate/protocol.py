"""A model tried on a task as the paper tries its own, and the paper's figures beside what it reached."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rate.envs import Figure, Task, make_vec, mean_interval
from rate.evaluation import Evaluation, evaluate
from rate.models import Model


@dataclass(frozen=True)
class Measure:
    """One number of a trial.

    Args:
        name: such as ``success`` or ``return``, with the part of the episodes it is about.
        mean: over the episodes.
        low: lower end of the 95 % confidence interval over episodes.
        high: its upper end.
        part: see :class:`rate.envs.Figure`; empty for all episodes.
        main: whether it is the task's score, which the paper's figures are of.
    """

    name: str
    mean: float
    low: float
    high: float
    part: str = ""
    main: bool = True


@dataclass(frozen=True)
class Trial:
    """Episodes of a model on a task.

    Args:
        task: what was tried.
        options: of the task, all of them.
        target_return: what was asked of the model.
        temperature: how it chose.
        evaluation: what came of it.
    """

    task: Task
    options: Mapping[str, Any]
    target_return: float
    temperature: float
    evaluation: Evaluation

    @property
    def at(self) -> Any:
        """The value of the task's axis; None if it has none."""
        return None if self.task.axis is None else self.options[self.task.axis]

    def measures(self) -> list[Measure]:
        """The task's score, that of each part of the episodes, and the other numbers it is known by."""
        task, found = self.task, self.evaluation
        main = Measure(task.score.label, *mean_interval(task.score.of(found.returns, found.successes)))
        parts = [
            Measure(f"{task.score.label}, {part}", *mean_interval(task.score.of(returns)), part=part)
            for part, returns in sorted(found.parts.items())
        ]
        more = [
            Measure(score.label, *mean_interval(score.of(found.returns, found.successes)), main=False)
            for score in task.more_scores
        ]
        return [main, *parts, *more]

    def figures(self, part: str = "") -> list[Figure]:
        """The paper's figures for the same options of the task and the same part of the episodes."""
        if self.differs():
            return []
        return [f for f in self.task.figures if f.part == part and f.at in (None, self.at)]

    def differs(self) -> dict[str, Any]:
        """Options, apart from the axis, that are not those of the paper, with the paper's values."""
        own = self.task.options
        return {
            name: own[name] for name, v in self.options.items() if name != self.task.axis and v != own[name]
        }


def try_task(
    model: Model,
    task: Task,
    episodes: int = 100,
    *,
    options: Mapping[str, Any] | None = None,
    target_return: float | None = None,
    temperature: float | None = None,
    num_envs: int | None = None,
    seed: int = 1000,
) -> Trial:
    """Plays ``episodes`` episodes of a task.

    Args:
        model: acts in evaluation mode.
        task: see :func:`rate.envs.task`.
        episodes: their number.
        options: over the task's own.
        target_return: what is asked of the model; None for the task's first.
        temperature: None for the task's own.
        num_envs: environments side by side at most; the largest number up to it that divides the episodes is taken.
            None for what suits the task.
        seed: of the environments and of sampling.

    Raises:
        ValueError: for an argument out of range, or a model that does not fit the task.
        ImportError: if the task's packages are not installed.
    """
    for name, value in (("episodes", episodes), ("num_envs", num_envs)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    count = largest_divisor(episodes, task.side_by_side if num_envs is None else num_envs)
    settings = {name: v for name, v in task.settings(options or {}).items() if name in task.options}
    target, chosen = task.asked(target_return, temperature)
    env = make_vec(task.name, count, **settings)
    try:
        found = evaluate(
            model,
            env,
            episodes,
            target,
            seed=seed,
            temperature=chosen,
            target_per_segment=task.target_per_segment,
        )
    finally:
        env.close()
    return Trial(task, settings, target, chosen, found)


def largest_divisor(episodes: int, at_most: int) -> int:
    """How many environments play ``episodes`` episodes, each as many: the largest number up to ``at_most``."""
    return max(n for n in range(1, min(at_most, episodes) + 1) if episodes % n == 0)


def report(trial: Trial) -> str:
    """Lines for the terminal: what the model reached, and below it what the paper reports."""
    task, found = trial.task, trial.evaluation
    where = "" if task.axis is None else f", {task.axis} {trial.at}"
    how = (
        "the likeliest actions" if trial.temperature == 0 else f"sampled at temperature {trial.temperature:g}"
    )
    lines = [
        f"{task.name}{where}: {len(found.returns)} episodes of {found.lengths.mean():.1f} steps, "
        f"target return {trial.target_return:g}, {how}, {found.lengths.sum() / found.seconds:.0f} steps/s"
    ]
    for measure in trial.measures():
        interval = f"{measure.low:.3f} to {measure.high:.3f}"
        lines.append(f"  {measure.name:24s} {measure.mean:10.3f}   95 % of {interval}")
        if measure.main:
            lines += [
                f"    paper, {f.model:15s} {f!s:>12s}   {f.source}" for f in trial.figures(measure.part)
            ]
    if not task.figures:
        lines.append("    the paper prints no figure for this task")
    elif trial.differs():
        theirs = ", ".join(f"{name} {value}" for name, value in trial.differs().items())
        lines.append(f"    the paper's figures are for {theirs}: --options changes it")
    elif task.axis is not None and not trial.figures():
        known = sorted({f.at for f in task.figures if f.at is not None})
        lines.append(f"    the paper's figures are for {task.axis} {', '.join(f'{v:g}' for v in known)}")
    return "\n".join(lines)


def to_csv(trials: Sequence[Trial]) -> str:
    """One row per number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        (
            "task",
            "at",
            "measure",
            "mean",
            "low",
            "high",
            "episodes",
            "steps",
            "target_return",
            "temperature",
            "paper_rate",
        )
    )
    for trial in trials:
        for m in trial.measures():
            paper = [f for f in trial.figures(m.part) if m.main and f.model == "RATE"]
            writer.writerow(
                (
                    trial.task.name,
                    "" if trial.at is None else trial.at,
                    m.name,
                    *(f"{value:.6g}" for value in (m.mean, m.low, m.high)),
                    len(trial.evaluation.returns),
                    f"{trial.evaluation.lengths.mean():.6g}",
                    f"{trial.target_return:g}",
                    f"{trial.temperature:g}",
                    f"{paper[0].value:g}" if paper else "",
                )
            )
    return text.getvalue()
