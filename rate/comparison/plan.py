"""What is compared: the settings of every run, and where the trained models are tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rate.config import Family
from rate.envs import Task, parse_options, task
from rate.training.options import RunOptions


@dataclass(frozen=True)
class Plan:
    """A comparison on one task.

    Args:
        options: settings that all runs share; ``options.task`` names the task.
        models: see :data:`rate.config.Family`.
        seeds: of parameters, batches and dropout; the data are the same for all.
        at: values of the task's axis to try the models at; empty for :func:`places`.
        episodes: of each trial.
        eval_seed: of the trials' environments and of sampling, the same for all.
        temperature: of the trials; None for the task's own.
        output: folder of the runs, the data and the results.

    Raises:
        ValueError: for an unknown task, model or option, no models or seeds, one named twice, or ``at`` without axis.
    """

    options: RunOptions
    models: tuple[Family, ...]
    seeds: tuple[int, ...]
    output: Path
    at: tuple[Any, ...] = ()
    episodes: int = 100
    eval_seed: int = 1000
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.options.task is None:
            raise ValueError("name a task to compare models on")
        for name, values in (("models", self.models), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be at least one, each named once, got {values}")
        for model in self.models:
            if model not in get_args(Family):
                raise ValueError(f"models must be of {', '.join(get_args(Family))}, got {model!r}")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds must not be negative, got {self.seeds}")
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}")
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if self.at and self.task.axis is None:
            raise ValueError(f"at needs a task with an axis, {self.task.name} has none")
        parse_options(self.task, self.options.options)

    @property
    def task(self) -> Task:
        """The task."""
        assert self.options.task is not None
        return task(self.options.task)

    @property
    def acting_temperature(self) -> float:
        """What the trials sample at."""
        return self.task.asked(None, self.temperature)[1]

    @property
    def task_options(self) -> dict[str, Any]:
        """All options of the task that models are trained on."""
        return self.task.settings(parse_options(self.task, self.options.options))

    @property
    def trained(self) -> Any:
        """The value of the task's axis in training (of T-Maze the longest); None for a task without axis."""
        if self.task.axis is None:
            return None
        return max(self.options.corridor) if self.options.corridor else self.task_options[self.task.axis]

    def trials(self) -> list[dict[str, Any]]:
        """Options of the task for each trial."""
        own = parse_options(self.task, self.options.options)
        if self.task.axis is None:
            return [own]
        values = self.at or self.options.eval_corridor or places(self.task, self.trained)
        return [own | {self.task.axis: value} for value in values]

    def folder(self, model: Family, seed: int) -> Path:
        """Where a run is kept."""
        return self.output / f"{model}-{seed}"

    def run(self, model: Family, seed: int, data: str) -> RunOptions:
        """Settings of a run on the episodes of ``data``.

        A DT of one segment gets as many windows more per batch as its windows are shorter, so that all models see the
        same number of steps per update. Nothing is evaluated while training.
        """
        shared = self.options
        more = shared.model.segments if model == "dt" else 1
        training = dataclasses.replace(
            shared.training, seed=seed, eval_every=0, batch_size=shared.training.batch_size * more
        )
        return dataclasses.replace(
            shared, dataset=data, model=dataclasses.replace(shared.model, family=model), training=training
        )

    def described(self) -> Mapping[str, Any]:
        """What makes the comparison what it is, for its results."""
        return {
            "task": self.task.name,
            "models": list(self.models),
            "seeds": list(self.seeds),
            "episodes": self.episodes,
            "eval_seed": self.eval_seed,
            "temperature": self.acting_temperature,
            "settings": dataclasses.asdict(self.options),
        }


def places(task: Task, trained: Any) -> tuple[Any, ...]:
    """The trained value of the task's axis, and about twice and four times it: grid sizes are odd (13, 25, 49)."""
    odd = int(task.family == "minigrid")
    return (trained, 2 * trained - odd, 4 * trained - 3 * odd)
