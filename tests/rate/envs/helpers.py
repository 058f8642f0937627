"""What every task must do, and its expert's scores."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import check_env

from rate.data.episodes import SpaceSpec
from rate.data.recording import Played, play
from rate.envs import make, make_vec, task


def check_task(name: str, **options: Any) -> None:
    """Gymnasium's checker without a warning; 1,000 random steps; spaces that the model reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|symmetric and normalized).*")
        env = make(name, **options)
        check_env(env, skip_render_check=True)
    SpaceSpec.from_space(env.observation_space, "observation")
    SpaceSpec.from_space(env.action_space, "action")
    env.close()
    vector = make_vec(name, 2, **options)
    vector.action_space.seed(0)
    observations, _ = vector.reset(seed=0)
    lengths, longest = np.zeros(2, int), 0
    for _ in range(500):
        observations, rewards, terminated, truncated, info = vector.step(vector.action_space.sample())
        assert observations in vector.observation_space and np.isfinite(rewards).all()
        ended = terminated | truncated
        if ended.any() and task(name).score.kind == "success":
            assert info["_success"][ended].all()
        lengths += 1
        longest = max(longest, int(lengths.max()))
        lengths[ended] = -1  # the next step only resets
    limit = task(name).max_steps
    assert limit is None or options or longest <= limit
    vector.close()


def expert_plays(name: str, episodes: int, seed: int = 0, num_envs: int = 8, **options: Any) -> list[Played]:
    """Episodes of the task's expert."""
    return list(play(task(name), 0, episodes, seed=seed, num_envs=num_envs, options=options))


def mean_return(played: list[Played]) -> float:
    """Of episodes."""
    return float(np.mean([one.recording.rewards.sum() for one in played]))
