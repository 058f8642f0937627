"""What every task must do, and its expert's scores."""

from __future__ import annotations

import csv
import json
import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import check_env

from rate.cli import main
from rate.data.episodes import SpaceSpec
from rate.data.recording import Played, play
from rate.envs import make, make_vec, task

SMALL = shlex.split(
    "--model.segment-length 5 --model.segments 3 --model.d-model 16 --model.num-layers 1 --model.num-heads 2 "
    "--model.d-inner 16 --model.num-memory 2 --training.updates 50 --training.batch-size 4 --training.threads 1 "
    "--training.device cpu --training.eval-every 25 --training.eval-episodes 2"
)


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


def recorded_trained_and_tried(
    name: str, folder: Path, *options: str, episodes: int = 20, policy: str | None = None
) -> list[dict[str, str]]:
    """``rate collect``, ``rate train`` and ``rate eval`` of a task, in a folder; the rows of the evaluation."""
    data, run = str(folder / "data"), folder / "run"
    chosen = ["--options", *options] if options else []
    who = [] if policy is None else ["--policy", policy]
    assert main(["collect", name, "--episodes", str(episodes), "--output", data, *chosen, *who]) == 0
    assert main(["train", "--dataset", data, "--run", str(run), *SMALL]) == 0
    asked = json.loads((run / "run.json").read_text())
    assert asked["task"] == name and sorted(asked["options"]) == sorted(options)
    assert asked["target_return"] == task(name).target_returns[0]
    with open(run / "metrics.csv", newline="") as file:
        said = {int(row["update"]): row["eval"] for row in csv.DictReader(file)}
    label = task(name).score.label
    assert len(said) == 50 and all(bool(said[n]) == (n in (25, 50)) for n in said)
    assert said[50].startswith(f"{label}=")
    assert main(["eval", str(run), "--episodes", "4"]) == 0
    with open(run / "evaluation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["task"] == name and rows[0]["measure"] == label and rows[0]["episodes"] == "4"
    assert all(float(row["low"]) <= float(row["mean"]) <= float(row["high"]) for row in rows)
    return rows
