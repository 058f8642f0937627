"""Policies to record MuJoCo data with: linear ones, found by augmented random search within minutes on a CPU.

The search (Mania, Guy and Recht, 2018, version V2-t) tries small random changes of a linear policy in both directions
and follows the differences of the returns. What it found at every step is kept, from falling over to walking, so that
recorded episodes are of all sorts, like those of D4RL's medium-replay data.

It depends on nothing but its settings; its result is kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from tqdm import tqdm

from rate.data.statistics import Moments
from rate.envs.cache import cache_folder
from rate.envs.registry import make
from rate.persistence import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv


@dataclass(frozen=True)
class Search:
    """Settings of the search.

    Args:
        task: name of the task.
        env_steps: steps of the environment after which it ends.
        directions: random changes tried in each round, each with both signs.
        best: of these, how many are followed.
        step: size of a round's step.
        noise: size of the changes.
        reward_shift: taken off every reward while searching, so that standing still earns nothing.
        max_steps: of an episode while searching.
        seed: of everything random.
    """

    task: str
    env_steps: int
    directions: int
    best: int
    step: float
    noise: float
    reward_shift: float = 0.0
    max_steps: int = 1000
    seed: int = 0


SEARCHES = {
    search.task: search
    for search in (
        Search("mujoco-hopper", 300_000, 8, 4, step=0.02, noise=0.025, reward_shift=1.0, seed=2),
        Search("mujoco-walker2d", 600_000, 16, 8, step=0.01, noise=0.025, reward_shift=1.0),
        Search("mujoco-halfcheetah", 400_000, 8, 4, step=0.02, noise=0.03, max_steps=300),
    )
}
"""By task: short enough for a coffee, long enough for policies that walk."""


@dataclass(frozen=True, eq=False)
class Rounds:
    """What a search found: linear policies ``action = clip(weight @ observation + bias)``, one for each round.

    Args:
        weights: float64 ``[rounds, A, D]``.
        biases: float64 ``[rounds, A]``.
        returns: float64 ``[rounds]``, mean return of the changes tried around each.
    """

    weights: np.ndarray
    biases: np.ndarray
    returns: np.ndarray


def run(search: Search) -> Rounds:
    """The search itself, with a progress bar."""
    env: Any = make(search.task, max_steps=search.max_steps)
    rng = np.random.default_rng(search.seed)
    shape = env.action_space.shape[0], env.observation_space.shape[0]
    weight, seen = np.zeros(shape), Moments(shape[1])
    found: dict[str, list[Any]] = {"weights": [], "biases": [], "returns": []}
    with tqdm(total=search.env_steps, unit="step", desc=search.task, disable=None, file=sys.stderr) as bar:
        while seen.count < search.env_steps:
            center = seen.mean.copy()
            scale = np.where(seen.deviation > 1e-7, seen.deviation, 1.0) if seen.count else np.ones(shape[1])
            changes = rng.standard_normal((search.directions, *shape))
            values, returns = np.zeros((2, search.directions, 2))
            for i, change in enumerate(changes):
                for side, sign in enumerate((1, -1)):
                    tried = (weight + sign * search.noise * change) / scale
                    observed, earned = _episode(env, tried, -tried @ center, int(rng.integers(2**31)))
                    returns[i, side] = earned
                    values[i, side] = earned - search.reward_shift * len(observed)
                    seen.add(observed)
                    bar.update(len(observed))
            found["weights"].append(weight / scale)
            found["biases"].append(-(weight / scale) @ center)
            found["returns"].append(returns.mean())
            bar.set_postfix_str(f"return {returns.mean():.0f}")
            best = np.argsort(-values.max(1), kind="stable")[: search.best]
            differences = values[best, 0] - values[best, 1]
            size = search.step / (search.best * (values[best].std() + 1e-8))
            weight = weight + size * np.tensordot(differences, changes[best], 1)
    env.close()
    return Rounds(**{name: np.array(parts) for name, parts in found.items()})


def _episode(env: Any, weight: np.ndarray, bias: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Observations ``[T, D]`` that were acted on, and the return."""
    observation, _ = env.reset(seed=seed)
    observed, earned, ended = [], 0.0, False
    while not ended:
        observed.append(observation)
        action = np.clip(weight @ observation + bias, -1, 1)
        observation, reward, terminated, truncated, _ = env.step(action)
        earned, ended = earned + reward, terminated or truncated
    return np.array(observed), earned


def rounds(search: Search) -> Rounds:
    """What :func:`run` gives, from the cache folder if it is there."""
    path = _path(search)
    if not path.is_file():
        found = run(search)

        def write(beside: Path) -> None:
            with open(beside, "wb") as file:
                np.savez(file, weights=found.weights, biases=found.biases, returns=found.returns)

        write_atomically(path, write)
    with np.load(path) as kept:
        return Rounds(kept["weights"], kept["biases"], kept["returns"])


def _path(search: Search) -> Path:
    """Other settings, and another physics engine, have another file."""
    key = repr((sorted(asdict(search).items()), mujoco.__version__)).encode()
    return cache_folder() / f"{search.task}-{hashlib.sha256(key).hexdigest()[:16]}.npz"


class LinearPolicies:
    """Plays each episode with one of a search's rounds, drawn from the episode's seed.

    Args:
        env: of one of the three tasks.
        found: the rounds to draw from.
        noise: standard deviation of normal noise added to the torques.
    """

    def __init__(self, env: SyncVectorEnv | AsyncVectorEnv, found: Rounds, noise: float) -> None:
        self._found, self._noise = found, noise
        self._round = np.zeros(env.num_envs, np.int64)
        self._rngs = [np.random.default_rng(0) for _ in range(env.num_envs)]

    def start(self, env_ids: np.ndarray, seeds: np.ndarray) -> None:
        """See :class:`rate.envs.Policy`."""
        for index, seed in zip(env_ids, seeds, strict=True):
            self._rngs[index] = np.random.default_rng(int(seed))
            self._round[index] = self._rngs[index].integers(len(self._found.weights))

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        """Torques float32 ``[B, A]`` for observations float64 ``[B, D]``."""
        weight, bias = self._found.weights[self._round], self._found.biases[self._round]
        noise = np.stack([rng.standard_normal(bias.shape[1]) for rng in self._rngs])
        torques = (weight @ observations[..., None])[..., 0] + bias + self._noise * noise
        return np.clip(torques, -1, 1).astype(np.float32)


def policy(env: SyncVectorEnv | AsyncVectorEnv) -> LinearPolicies:
    """All rounds of the task's search, for ``rate collect --policy rate.envs.mujoco.search:policy``."""
    return LinearPolicies(env, rounds(_search(env)), noise=0.1)


def best(env: SyncVectorEnv | AsyncVectorEnv) -> LinearPolicies:
    """The round of the task's search that returned most, without noise."""
    found = rounds(_search(env))
    top = [int(found.returns.argmax())]
    return LinearPolicies(
        env, Rounds(*(getattr(found, n)[top] for n in ("weights", "biases", "returns"))), 0.0
    )


def _search(env: SyncVectorEnv | AsyncVectorEnv) -> Search:
    try:
        return SEARCHES[env.get_attr("task_name")[0]]
    except AttributeError:
        raise ValueError(f"env must be of one of {', '.join(SEARCHES)}, got {env}") from None
