"""Running a model in vector environments and counting what it earns."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rate.data import SpaceSpec
from rate.models import Model

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True)
class Evaluation:
    """Finished episodes.

    Args:
        returns: float64 ``[N]``.
        lengths: int64 ``[N]``, steps.
        successes: bool ``[N]``, or None where the environment does not report ``info["success"]``.
        seconds: wall time of all of it.
        parts: returns, float64, of parts of the episodes: of those that ended with ``info["<part>_return"]``.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray | None
    seconds: float
    parts: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def success_rate(self) -> float:
        """Share of successful episodes; NaN where success is not reported."""
        return float("nan") if self.successes is None else float(self.successes.mean())


def evaluate(
    model: Model,
    env: gymnasium.vector.VectorEnv,
    episodes: int,
    target_return: float,
    *,
    seed: int = 0,
    temperature: float = 0.0,
    target_per_segment: bool = False,
) -> Evaluation:
    """Acts until ``episodes`` episodes have ended; every environment plays the same number of them.

    Playing a fixed number per environment, rather than taking whatever ends first, keeps short episodes from being
    counted more often than long ones.

    Args:
        model: acts in evaluation mode.
        env: resets by itself on the step after an episode's end (``AutoresetMode.NEXT_STEP``, Gymnasium's default).
        episodes: divisible by ``env.num_envs``.
        target_return: what is asked of the model.
        seed: of the environments and of sampling.
        temperature: 0 for the most likely action.
        target_per_segment: start again with ``target_return`` at each segment, whatever was earned.

    Raises:
        ValueError: if the environment's spaces do not fit the model, or the episodes do not divide.
    """
    import gymnasium

    mode = env.metadata.get("autoreset_mode", gymnasium.vector.AutoresetMode.NEXT_STEP)
    if mode != gymnasium.vector.AutoresetMode.NEXT_STEP:
        raise ValueError(f"env must use AutoresetMode.NEXT_STEP, got {mode}")
    if episodes < 1 or episodes % env.num_envs:
        raise ValueError(f"episodes must be a multiple of the {env.num_envs} environments, got {episodes}")
    observations, actions = encodings(model, env.single_observation_space, env.single_action_space)
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    actor = model.actor(env.num_envs, temperature=temperature, generator=generator)
    started = time.perf_counter()
    actor.reset(target_return)
    observation, _ = env.reset(seed=seed)
    quota = episodes // env.num_envs
    returns: list[list[float]] = [[] for _ in range(env.num_envs)]
    lengths: list[list[int]] = [[] for _ in range(env.num_envs)]
    successes: list[list[bool]] = [[] for _ in range(env.num_envs)]
    parts: dict[str, list[float]] = {}
    earned, steps = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.int64)
    reward: np.ndarray | None = None
    ended = np.zeros(env.num_envs, dtype=bool)
    playing = env.num_envs  # environments that have not played their number
    while playing:
        if target_per_segment and reward is not None:
            begins = steps % model.config.segment_length == 0
            reward = np.where(begins, actor.return_to_go - target_return, reward)
        action = actor.act(observations.to_model(observation), reward)
        observation, reward, terminated, truncated, info = env.step(actions.to_env(action))
        earned, steps = earned + reward, steps + 1
        fresh, ended = ended, terminated | truncated
        if fresh.any():  # these took no step: the environment reset them and ignored the action
            actor.reset(target_return, fresh)
            earned[fresh], steps[fresh], ended[fresh] = 0.0, 0, False
        for i in np.flatnonzero(ended):
            if len(returns[i]) < quota:
                returns[i].append(float(earned[i]))
                lengths[i].append(int(steps[i]))
                if "success" in info:
                    successes[i].append(bool(info["success"][i]))
                for name, values in info.items():
                    if name.endswith("_return") and f"_{name}" in info and info[f"_{name}"][i]:
                        parts.setdefault(name.removesuffix("_return"), []).append(float(values[i]))
                playing -= len(returns[i]) == quota
    reported = all(len(s) == quota for s in successes)
    return Evaluation(
        np.array(returns).ravel(),
        np.array(lengths).ravel(),
        np.array(successes).ravel() if reported else None,
        time.perf_counter() - started,
        {part: np.array(values) for part, values in parts.items()},
    )


@dataclass(frozen=True)
class _Observations:
    spec: SpaceSpec

    def to_model(self, observation: Any) -> np.ndarray:
        observation = np.asarray(observation)
        if self.spec.kind == "image" and self.spec.channels_last:
            return np.moveaxis(observation, -1, -3)
        return observation - self.spec.start if self.spec.kind == "discrete" else observation


@dataclass(frozen=True)
class _Actions:
    spec: SpaceSpec
    space: Any

    def to_env(self, action: np.ndarray) -> np.ndarray:
        if self.spec.kind == "discrete":
            return action + self.spec.start
        return np.clip(action, self.space.low, self.space.high)


def encodings(model: Model, observation_space: Any, action_space: Any) -> tuple[_Observations, _Actions]:
    """What stands between a model and environments with these spaces.

    Raises:
        ValueError: if they do not fit the model.
        TypeError: for spaces that no model reads.
    """
    observed = SpaceSpec.from_space(observation_space, "observation")
    acted = SpaceSpec.from_space(action_space, "action")
    config = model.config
    if observed.kind != config.observation or tuple(observed.shape) != config.observation_shape:
        raise ValueError(
            f"env gives {observed.kind} observations {tuple(observed.shape)}, "
            f"the model reads {config.observation} {config.observation_shape}"
        )
    if observed.kind == "discrete" and (observed.n or 0) > config.num_observations:
        raise ValueError(
            f"env gives {observed.n} discrete observations, the model reads {config.num_observations}"
        )
    size = acted.n if acted.kind == "discrete" else acted.shape[0]
    if acted.kind != config.action or size != config.action_size:
        raise ValueError(
            f"env takes {acted.kind} actions of size {size}, the model gives {config.action} {config.action_size}"
        )
    return _Observations(observed), _Actions(acted, action_space)
