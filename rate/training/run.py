"""From options to a trained model in a folder."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rate import runs
from rate.data import (
    EpisodeSource,
    LazyEpisodes,
    MinariEpisodes,
    SegmentWindows,
    SpaceSpec,
    collect,
    observation_statistics,
    open_source,
    tmaze_episodes,
)
from rate.envs import Task, make, parse_options, task, task_of
from rate.evaluation import encodings
from rate.models import Model, build
from rate.protocol import try_task
from rate.training.options import RunOptions
from rate.training.trainer import Trainer, resolve_device


def start(folder: Path, options: RunOptions) -> Trainer:
    """Prepares a new run in ``folder``.

    A task without a data set is recorded first, into the run's folder: ``options.episodes`` of its expert.

    Raises:
        FileExistsError: if a run is there already.
        ValueError: for options that do not fit together or data that cannot be trained on.
        ImportError: if the packages of a task that must be recorded are not installed.
    """
    if options.task is None and options.dataset is None:
        raise ValueError("name a task, or --dataset PATH_OR_ID")
    if options.task is not None:
        parse_options(task(options.task), options.options)
    runs.check_free(folder)
    source = episodes(folder, options)
    options = resolved(options, source)
    trainer = _prepare(folder, options, source)
    runs.create(folder, options)
    return trainer


def resume(folder: Path) -> Trainer:
    """Prepares the run in ``folder`` to go on from its newest checkpoint.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if a file of it is not valid.
    """
    options = runs.load_options(folder)
    trainer = _prepare(folder, options, episodes(folder, options))
    trainer.resume()
    return trainer


def _prepare(folder: Path, options: RunOptions, source: EpisodeSource) -> Trainer:
    windows = SegmentWindows(source, *options.model.window())
    training = options.training
    if training.epochs:
        batches = math.ceil(len(windows) / training.batch_size)
        training = dataclasses.replace(training, updates=training.epochs * batches)
    torch.manual_seed(training.seed)
    model = _model(options, source)
    return Trainer(model, windows, training, folder, _evaluation(options, model))


def episodes(folder: Path, options: RunOptions) -> EpisodeSource:
    """The data set that is named, or the task's own data, recorded in ``folder`` where they must be kept."""
    if options.dataset is not None:
        given = SpaceSpec("discrete", (), n=options.num_actions) if options.num_actions else None
        source = open_source(options.dataset, limit=options.data_limit or None, action_space=given)
        if given is None and not isinstance(source, MinariEpisodes):
            _count_actions(source, options)
        return source
    assert options.task is not None
    found = task(options.task)
    if found.name == "tmaze" and not options.options:
        if not options.corridor:
            raise ValueError("corridor must name at least one corridor length for the task tmaze")
        return tmaze_episodes(options.episodes, options.corridor, options.training.seed)
    return _recorded(folder / "data", found, options)


def _count_actions(source: LazyEpisodes, options: RunOptions) -> None:
    """Files that know only the actions they hold get those of the task's environment, where it has more."""
    if options.task is None or source.action_space.kind != "discrete":
        return
    found = task(options.task)
    try:
        _, actions = _spaces(found, parse_options(found, options.options))
    except ImportError:  # the task can be trained on without its packages
        return
    if actions.kind == "discrete" and (actions.n or 0) > (source.action_space.n or 0):
        source.action_space = actions


def _recorded(data: Path, found: Task, options: RunOptions) -> EpisodeSource:
    """Episodes of the task's expert, recorded into ``data`` unless they are there."""
    settings = found.settings(parse_options(found, options.options))
    if not (data / "data").is_dir():
        found.check_expert()
        _check_model(found, settings, options)
        print(f"recording {options.episodes} episodes of {found.name}'s expert in {data}", file=sys.stderr)
        env_options = {name: value for name, value in settings.items() if name in found.options}
        collect(data, found, options.episodes, options=env_options, seed=options.training.seed, resume=True)
    source = MinariEpisodes(data)
    known = task_of(source.dataset.env_spec)
    if known is None or known[0] is not found or found.settings(known[1]) != settings:
        there = "another task" if known is None else f"{known[0].name} with {known[1]}"
        raise ValueError(f"{data} holds {there}, expected {found.name} with {settings}: remove it")
    return source


def _check_model(found: Task, settings: dict[str, Any], options: RunOptions) -> None:
    """Whether the model can be made, before time is spent on recording. Raises ValueError if not."""
    resolve_device(options.training.device)
    options.model.config(*_spaces(found, settings))


def _spaces(found: Task, settings: dict[str, Any]) -> tuple[SpaceSpec, SpaceSpec]:
    """Observations and actions of the task's environment."""
    env = make(found.name, **{name: value for name, value in settings.items() if name in found.options})
    env.close()
    observed = SpaceSpec.from_space(env.observation_space, "observation")
    return observed, SpaceSpec.from_space(env.action_space, "action")


def resolved(options: RunOptions, source: EpisodeSource) -> RunOptions:
    """The options with what the data say of their task, where they do, and the task's target return."""
    known = task_of(source.dataset.env_spec) if isinstance(source, MinariEpisodes) else None
    if known is not None and (options.task is None or task(options.task) is known[0]):
        changed = {name: v for name, v in known[1].items() if v != known[0].options[name]}
        texts = tuple(f"{name}={json.dumps(value)}" for name, value in changed.items())
        options = dataclasses.replace(options, task=known[0].name, options=texts + options.options)
    if options.task is not None:
        found = task(options.task)
        options = dataclasses.replace(options, task=found.name)
        if options.target_return is None:
            options = dataclasses.replace(options, target_return=found.target_returns[0])
    return options if options.target_return is not None else dataclasses.replace(options, target_return=1.0)


def _model(options: RunOptions, source: EpisodeSource) -> Model:
    actions = source.action_space
    scale = 1.0
    if actions.kind == "continuous":
        bounds = [
            abs(bound) for bound in (actions.low, actions.high) if bound is not None and math.isfinite(bound)
        ]
        scale = max(bounds, default=1.0)
    model = build(options.model.config(source.observation_space, actions, scale))
    if model.config.normalize_observations:
        mean, std = observation_statistics(source)
        model.observation_encoder.mean.copy_(torch.as_tensor(mean))  # type: ignore[union-attr, operator]
        model.observation_encoder.std.copy_(torch.as_tensor(std))  # type: ignore[union-attr, operator]
    return model


def _evaluation(options: RunOptions, model: Model) -> Callable[[Model], dict[str, float]] | None:
    """The task's score, for T-Maze at each of the run's evaluation corridors."""
    if options.task is None:
        return None
    found = task(options.task)
    settings = parse_options(found, options.options)
    if not options.training.eval_every or (found.name == "tmaze" and not options.eval_corridor):
        return None
    try:
        env = make(found.name, **settings)
        env.close()
        encodings(model, env.observation_space, env.action_space)
    except (ImportError, ValueError) as error:
        if options.dataset is None:
            raise
        print(f"not evaluated while training: {error}", file=sys.stderr)
        return None
    places = {f"success_{n}": {"corridor_length": n} for n in options.eval_corridor} or {
        found.score.label: {}
    }

    def scores(model: Model) -> dict[str, float]:
        return {name: _score(model, found, settings | place, options) for name, place in places.items()}

    return scores


def _score(model: Model, found: Task, settings: dict[str, Any], options: RunOptions) -> float:
    training = options.training
    trial = try_task(
        model,
        found,
        training.eval_episodes,
        options=settings,
        target_return=options.target_return,
        seed=training.seed,
    )
    return trial.measures()[0].mean
