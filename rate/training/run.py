"""From options to a trained model in a folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import torch

from rate import runs
from rate.data import (
    EpisodeSource,
    SegmentWindows,
    SpaceSpec,
    observation_statistics,
    open_source,
    tmaze_episodes,
)
from rate.evaluation import evaluate
from rate.model import RATE
from rate.training.options import RunOptions
from rate.training.trainer import Trainer

TASKS = ("tmaze",)


def start(folder: Path, options: RunOptions) -> Trainer:
    """Prepares a new run in ``folder``.

    Raises:
        FileExistsError: if a run is there already.
        ValueError: for options that do not fit together or data that cannot be trained on.
    """
    if (options.task is None) == (options.dataset is None):
        raise ValueError("name either a task (tmaze) or --dataset PATH_OR_ID")
    if options.task is not None and options.task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {options.task!r}")
    trainer = _prepare(folder, options)
    runs.create(folder, options)
    return trainer


def resume(folder: Path) -> Trainer:
    """Prepares the run in ``folder`` to go on from its newest checkpoint.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if a file of it is not valid.
    """
    trainer = _prepare(folder, runs.load_options(folder))
    trainer.resume()
    return trainer


def _prepare(folder: Path, options: RunOptions) -> Trainer:
    source = _episodes(options)
    windows = SegmentWindows(source, options.model.segment_length, options.model.segments)
    training = options.training
    if training.epochs:
        batches = math.ceil(len(windows) / training.batch_size)
        training = dataclasses.replace(training, updates=training.epochs * batches)
    torch.manual_seed(training.seed)
    return Trainer(_model(options, source), windows, training, folder, _evaluation(options))


def _episodes(options: RunOptions) -> EpisodeSource:
    if options.dataset is not None:
        given = SpaceSpec("discrete", (), n=options.num_actions) if options.num_actions else None
        return open_source(options.dataset, limit=options.data_limit or None, action_space=given)
    if not options.corridor:
        raise ValueError("corridor must name at least one corridor length for the task tmaze")
    return tmaze_episodes(options.episodes, options.corridor, options.training.seed)


def _model(options: RunOptions, source: EpisodeSource) -> RATE:
    actions = source.action_space
    scale = 1.0
    if actions.kind == "continuous":
        bounds = [
            abs(bound) for bound in (actions.low, actions.high) if bound is not None and math.isfinite(bound)
        ]
        scale = max(bounds, default=1.0)
    model = RATE(options.model.config(source.observation_space, actions, scale))
    if model.config.normalize_observations:
        mean, std = observation_statistics(source)
        model.observation_encoder.mean.copy_(torch.as_tensor(mean))  # type: ignore[union-attr, operator]
        model.observation_encoder.std.copy_(torch.as_tensor(std))  # type: ignore[union-attr, operator]
    return model


def _evaluation(options: RunOptions) -> Callable[[RATE], dict[str, float]] | None:
    """Success at the run's evaluation corridors, for T-Maze."""
    if options.task != "tmaze" or not options.eval_corridor:
        return None

    def success(model: RATE) -> dict[str, float]:
        return {
            f"success_{corridor}": tmaze_success(
                model, corridor, options.training.eval_episodes, options.target_return, options.training.seed
            )
            for corridor in options.eval_corridor
        }

    return success


def tmaze_success(model: RATE, corridor: int, episodes: int, target_return: float, seed: int) -> float:
    """Share of T-Maze episodes that end at the right side, half of them with the hint up."""
    from rate.envs import TMazeVector

    env = TMazeVector(episodes, corridor_length=corridor, balanced_goals=True)
    return evaluate(model, env, episodes, target_return, seed=seed).success_rate
