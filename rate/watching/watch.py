"""One episode played by a model, with all that it saw."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import Env

from rate.envs import Task, make
from rate.evaluation import encodings
from rate.models import Model

logger = logging.getLogger("rate")


@dataclass(frozen=True)
class Watched:
    """An episode of T steps.

    Args:
        observations: ``[T, *observation_shape]``, as the model reads them.
        actions: ``[T]`` int64 or ``[T, A]`` float32, what the model chose.
        rewards: float64 ``[T]``.
        returns_to_go: float32 ``[T, 1]``, what was asked at each step.
        frames: T pictures uint8 ``[H, W, 3]``, the environment drawn before each step; None where it cannot be drawn.
        success: what the environment said at the end; None if it says nothing.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    returns_to_go: np.ndarray
    frames: list[np.ndarray] | None
    success: bool | None


def watch(
    model: Model,
    task: Task,
    *,
    options: Mapping[str, Any] | None = None,
    target_return: float | None = None,
    temperature: float | None = None,
    seed: int = 1000,
) -> Watched:
    """Plays one episode of a task.

    Args:
        model: acts in evaluation mode.
        task: see :func:`rate.envs.task`.
        options: over the task's own.
        target_return: what is asked of the model; None for the task's first.
        temperature: None for the task's own.
        seed: of the environment and of sampling.

    Raises:
        ValueError: for a model that does not fit the task, or an option out of range.
        ImportError: if the task's packages are not installed.
    """
    target, warmth = task.asked(target_return, temperature)
    env = _make(task, options or {})
    observations: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    returns: list[np.ndarray] = []
    frames: list[np.ndarray] = []
    rewards: list[float] = []
    try:
        to_model, to_env = encodings(model, env.observation_space, env.action_space)
        generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        actor = model.actor(1, temperature=warmth, generator=generator)
        actor.reset(target)
        observation, info = env.reset(seed=seed)
        reward: np.ndarray | None = None
        ended = False
        while not ended:
            if (
                task.target_per_segment
                and reward is not None
                and len(actions) % model.config.segment_length == 0
            ):
                reward = actor.return_to_go - target
            observed = np.array(to_model.to_model(np.asarray(observation)[None])[0])
            observations.append(
                observed.astype(np.float32) if model.config.observation == "vector" else observed
            )
            if env.render_mode is not None:
                frames.append(np.array(env.render()))
            actions.append(actor.act(observations[-1][None], reward)[0])
            returns.append(actor.return_to_go.astype(np.float32))
            observation, earned, terminated, truncated, info = env.step(to_env.to_env(actions[-1]))
            rewards.append(float(earned))
            reward, ended = np.array([rewards[-1]]), terminated or truncated
    finally:
        env.close()
    return Watched(
        np.stack(observations),
        np.stack(actions),
        np.array(rewards),
        np.stack(returns),
        frames or None,
        bool(info["success"]) if "success" in info else None,
    )


def _make(task: Task, options: Mapping[str, Any]) -> Env:
    """The environment, drawn where it can be: an environment may need graphics that this machine does not have."""
    if not task.drawable():
        return make(task.name, **options)
    env = make(task.name, render_mode="rgb_array", **options)
    try:
        env.reset(seed=0)
        env.render()
    except Exception as error:  # each graphics library has its own
        logger.warning("%s is not drawn: %s", task.name, error)
        env.close()
        return make(task.name, **options)
    return env
