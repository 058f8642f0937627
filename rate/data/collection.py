"""Recording a task's episodes as a data set, in one go or in several."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from rate.data.minari_writer import check_free, place, write_minari
from rate.data.parts import Parts
from rate.data.recording import play

if TYPE_CHECKING:
    from rate.envs import Task


@dataclass(frozen=True)
class Collection:
    """A data set that was recorded.

    Args:
        path: its folder.
        returns: of its episodes, float64 ``[N]``.
        lengths: steps, int64 ``[N]``.
        successes: bool ``[N]``, or None where the task does not report success.
    """

    path: Path
    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray | None


def collect(
    output: str | os.PathLike[str],
    task: Task,
    episodes: int,
    *,
    policy: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    num_envs: int = 16,
    processes: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> Collection:
    """Records episodes of a task as a Minari data set that names its environment.

    Finished episodes are kept beside the output while others are played. After an interruption ``resume`` plays the
    rest: the set is the same as if nothing had happened.

    Args:
        output: Minari id or folder, see :func:`rate.data.write_minari`.
        task: see :func:`rate.envs.task`.
        episodes: their number, at least 1.
        policy: ``module:function``, see :func:`rate.envs.load_policy`; None for the task's scripted expert.
        options: of the task.
        seed: of the collection.
        num_envs: environments side by side; the set does not depend on it.
        processes: see :func:`rate.envs.make_vec`.
        resume: go on with an interrupted collection of the same output, if there is one.
        overwrite: replace a data set, or an interrupted collection, that is there.

    Raises:
        FileExistsError: if a data set or an interrupted collection is there already.
        ValueError: for an argument out of range, or if ``resume`` finds another task, policy, seed or other options.
        KeyboardInterrupt: on Ctrl-C, once the finished episodes are kept.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    chosen = dict(options or {})
    target, _ = place(output)
    check_free(target, overwrite)
    about = {"task": task.name, "options": task.settings(chosen), "policy": policy, "seed": seed}
    parts = Parts(parts_folder(target), about)
    if resume:
        parts.check()
    elif parts.count and not overwrite:
        raise FileExistsError(
            f"an interrupted collection of {parts.count} episodes is at {parts.folder}: go on with it, or overwrite it"
        )
    elif parts.count:
        parts.remove()
    bar = tqdm(
        total=episodes, initial=min(parts.count, episodes), unit="episode", disable=None, file=sys.stderr
    )
    try:
        if parts.count < episodes:
            for played in play(
                task,
                parts.count,
                episodes,
                policy=policy,
                seed=seed,
                num_envs=num_envs,
                processes=processes,
                options=chosen,
            ):
                parts.add(played)
                bar.update()
    finally:
        bar.close()
        parts.flush()
    return _write(output, task, parts, episodes, chosen, overwrite)


def parts_folder(target: Path) -> Path:
    """Where the episodes of a running collection are kept, beside the data set's folder."""
    return target.with_name(f".{target.name}.collecting")


def _write(
    output: str | os.PathLike[str],
    task: Task,
    parts: Parts,
    episodes: int,
    options: dict[str, Any],
    overwrite: bool,
) -> Collection:
    from rate.envs import make

    env = make(task.name, **options)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    env.close()
    returns, lengths, successes = [], [], []

    def recordings() -> Any:
        for played in parts:
            if played.index == episodes:
                return
            returns.append(float(np.sum(played.recording.rewards)))
            lengths.append(len(played.recording.rewards))
            successes.append(played.success)
            yield played.recording

    _clear(place(output)[0])
    who = parts.about["policy"] or "scripted expert"
    path = write_minari(
        output,
        recordings(),
        **spaces,
        env_spec=task.spec(**options),
        algorithm_name=who,
        description=f"{task.name} with {parts.about['options']}, by {who}, seed {parts.about['seed']}",
        overwrite=overwrite,
    )
    parts.remove()
    reported = None if None in successes else np.array(successes, bool)
    return Collection(path, np.array(returns), np.array(lengths), reported)


def _clear(target: Path) -> None:
    """Deletes what a killed process left of the same set: half a set, beside its place."""
    left = re.compile(re.escape(f".{target.name}-") + r"[a-z0-9_]{8}")  # as write_minari names it
    for folder in target.parent.glob(f".{target.name}-*"):
        if left.fullmatch(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
