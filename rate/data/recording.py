"""Playing a task's episodes for the record, several environments at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rate.data.episodes import Recording

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

    from rate.envs import Policy, Task


@dataclass(frozen=True, eq=False)
class Played:
    """An episode that was played.

    Args:
        index: its number.
        recording: what happened.
        success: ``info["success"]`` of its last step, None where the environment does not say.
    """

    index: int
    recording: Recording
    success: bool | None


def play(
    task: Task,
    first: int,
    end: int,
    *,
    policy: str | None = None,
    seed: int = 0,
    num_envs: int = 16,
    processes: bool = False,
    options: dict[str, Any] | None = None,
) -> Iterator[Played]:
    """The episodes ``first .. end - 1`` of a collection, in this order.

    An episode follows from the seed and its own number alone (of a policy that draws from the seeds it is given), so a
    collection is the same however many environments play it, and may go on where it ended.

    Args:
        task: see :func:`rate.envs.task`.
        first: number of the first episode.
        end: number after the last.
        policy: ``module:function``, see :func:`rate.envs.load_policy`; None for the task's scripted expert.
        seed: of the collection, not negative.
        num_envs: environments side by side.
        processes: see :func:`rate.envs.make_vec`.
        options: of the task.

    Raises:
        ValueError: for an argument out of range, or a task without an expert.
    """
    from gymnasium.vector import AutoresetMode

    from rate.envs import load_policy, make_vec

    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    count = max(1, min(num_envs, end - first))
    env = make_vec(
        task.name, count, processes=processes, autoreset_mode=AutoresetMode.DISABLED, **(options or {})
    )
    try:
        actor = task.load_expert(env) if policy is None else load_policy(policy, env)
        yield from _Stage(env, actor, seed).play(first, end)
    finally:
        env.close()


class _Stage:
    """Environments, what plays in them, and the episodes that are running."""

    def __init__(self, env: VectorEnv, policy: Policy, seed: int) -> None:
        self.env, self.policy, self.seed = env, policy, seed
        self.number = np.zeros(env.num_envs, np.int64)
        self.observed: list[list[np.ndarray]] = [[] for _ in range(env.num_envs)]
        self.acted: list[list[np.ndarray]] = [[] for _ in range(env.num_envs)]
        self.earned: list[list[float]] = [[] for _ in range(env.num_envs)]
        self.next = 0

    def play(self, first: int, end: int) -> Iterator[Played]:
        self.next, due = first, first
        waiting: dict[int, Played] = {}
        observations = self._start(np.ones(self.env.num_envs, bool))
        rewards = np.zeros(self.env.num_envs)
        while due < end:
            actions = self.policy.act(observations, rewards)
            observations, rewards, terminated, truncated, info = self.env.step(actions)
            for i in range(self.env.num_envs):
                self.observed[i].append(observations[i].copy())
                self.acted[i].append(np.copy(actions[i]))
                self.earned[i].append(float(rewards[i]))
            ended = terminated | truncated
            if not ended.any():
                continue
            for i in np.flatnonzero(ended).tolist():
                if self.number[i] < end:  # the rest only keep their environment busy until all are done
                    success = bool(info["success"][i]) if "success" in info else None
                    waiting[int(self.number[i])] = self._played(i, bool(terminated[i]), success)
            while due in waiting:
                yield waiting.pop(due)
                due += 1
            if due < end:
                observations, rewards = self._start(ended), np.where(ended, 0.0, rewards)

    def _start(self, which: np.ndarray) -> np.ndarray:
        """Begins the next episodes in the environments ``which``; returns the observations of all."""
        ids = np.flatnonzero(which)
        seeds: list[int | None] = [None] * self.env.num_envs
        for i in ids:
            self.number[i] = self.next
            seeds[i] = _episode_seed(self.seed, self.next)
            self.next += 1
        observations, _ = self.env.reset(seed=seeds, options={"reset_mask": which.copy()})  # type: ignore[arg-type]
        for i in ids:
            self.observed[i], self.acted[i], self.earned[i] = [observations[i].copy()], [], []
        self.policy.start(ids, np.array([seeds[i] for i in ids], np.int64))
        return observations

    def _played(self, i: int, terminated: bool, success: bool | None) -> Played:
        recording = Recording(
            np.stack(self.observed[i]),
            np.stack(self.acted[i]),
            np.array(self.earned[i]),
            terminated=terminated,
            truncated=not terminated,
        )
        return Played(int(self.number[i]), recording, success)


def _episode_seed(seed: int, index: int) -> int:
    return int(np.random.SeedSequence((seed, index)).generate_state(1)[0]) % 2**31
