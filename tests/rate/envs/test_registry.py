"""The registry: lookups, options, specifications, what is said when a package is missing."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from rate.envs import FAMILIES, Score, Task, TMazeVector, make, make_vec, mean_interval, task, task_of, tasks
from rate.envs import registry as registry_module


def test_names_are_unique_and_begin_with_their_family():
    every = tasks()
    assert (
        len({known.name.lower() for known in every}) == len({known.env_id for known in every}) == len(every)
    )
    for family in FAMILIES:
        assert tasks(family) and all(t.family == family and t.name.startswith(family) for t in tasks(family))


def test_every_task_is_complete():
    for known in tasks():
        assert (
            known.summary and known.observation and known.action and known.protocol and known.target_returns
        )
        assert (known.expert is None) == bool(known.no_expert), known.name
        assert (known.extra is None) == (not known.packages), known.name
        assert known.axis is None or known.axis in known.options, known.name
        assert all(figure.source and (figure.spread or 0) >= 0 for figure in known.figures), known.name


def test_a_task_is_found_whatever_the_case():
    assert task("TMaze") is task("tmaze") and task("tmaze").name == "tmaze"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: task("tmase"), "task 'tmase' is not known; did you mean tmaze"),
        (lambda: task("xyzzy"), "task 'xyzzy' is not known; families: tmaze, "),
        (lambda: tasks("chess"), "family must be one of tmaze, .*, got 'chess'"),
        (lambda: make("tmaze", size=3), "tmaze has no option 'size'; known are corridor_length, noise, "),
        (lambda: make("tmaze", corridor_length=0), "corridor_length must be at least 1, got 0"),
        (lambda: make_vec("tmaze", 0), "num_envs must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_vector_environments_are_the_tasks_own_or_copies(monkeypatch):
    mazes = make_vec("tmaze", 6, corridor_length=5)
    assert isinstance(mazes, TMazeVector) and mazes.balanced_goals and mazes.num_envs == 6
    bare = dataclasses.replace(task("tmaze"), vector_entry_point=None)
    monkeypatch.setattr(registry_module, "task", lambda name: bare)
    copies = make_vec("tmaze", 2, autoreset_mode="Disabled", corridor_length=5)
    assert isinstance(copies, SyncVectorEnv) and copies.autoreset_mode is AutoresetMode.DISABLED
    with_processes = make_vec("tmaze", 2, processes=True, corridor_length=5)
    assert isinstance(with_processes, AsyncVectorEnv)
    first, again = copies.reset(seed=3)[0], with_processes.reset(seed=3)[0]
    np.testing.assert_array_equal(first, again)
    with_processes.close()


def test_a_specification_makes_the_environment_where_this_package_was_never_imported():
    spec = task("tmaze").spec(corridor_length=7)
    code = (
        "import sys, gymnasium\n"
        f"env = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json({spec.to_json()!r}))\n"
        "print(env.unwrapped.corridor_length)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7"]
    found = task_of(spec)
    assert found is not None and found[0] is task("tmaze") and found[1]["corridor_length"] == 7
    assert task_of(None) is None and task_of(gymnasium.spec("CartPole-v1")) is None


def test_reading_the_registry_imports_no_environment_package():
    code = (
        "import sys, rate.envs\n"
        "rate.envs.tasks()\n"
        "print(sorted({'minigrid', 'popgym', 'vizdoom', 'ale_py', 'mujoco', 'memory_maze', 'cv2'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_says_what_to_install(monkeypatch):
    lacking = dataclasses.replace(task("tmaze"), extra="mazes", packages=("no_such_package",))
    monkeypatch.setattr(registry_module, "task", lambda name: lacking)
    for call in (lambda: make("tmaze"), lambda: make_vec("tmaze", 2)):
        with pytest.raises(
            ImportError, match=r"tmaze needs no_such_package: pip install 'rate-kernels\[mazes\]'"
        ):
            call()


def test_a_task_without_expert_says_why():
    silent = Task(
        "x", "x", "-", "-", "-", "-", Score(), (1.0,), expert=None, no_expert="nobody knows the way"
    )
    with pytest.raises(ValueError, match=r"x has no scripted expert \(nobody knows the way\)"):
        silent.load_expert(make_vec("tmaze", 1))


def test_scores():
    returns, successes = np.array([0.0, 5.0, 10.0]), np.array([True, False, True])
    assert Score("success").of(returns, successes).tolist() == [1, 0, 1]
    assert Score("return").of(returns).tolist() == [0, 5, 10]
    assert Score("normalised", low=5, high=10).of(returns).tolist() == [-100, 0, 100]
    with pytest.raises(ValueError, match="did not report"):
        Score("success").of(returns)


def test_intervals():
    mean, low, high = mean_interval(np.ones(100))
    assert mean == high == 1 and low == pytest.approx(0.963, abs=1e-3)  # Wilson, 100 of 100
    mean, low, high = mean_interval(np.arange(10) < 3)
    assert (mean, low, high) == pytest.approx((0.3, 0.108, 0.603), abs=1e-3)  # Wilson, 3 of 10
    values = np.random.default_rng(1).normal(5, 2, 400)
    mean, low, high = mean_interval(values)
    half = 1.96 * values.std() / 20
    assert mean == values.mean() and (low, high) == pytest.approx((mean - half, mean + half), abs=0.03)
    with pytest.raises(ValueError, match="at least one episode"):
        mean_interval(np.array([]))


def test_the_page_of_environments_names_every_task():
    page = (Path(__file__).parents[3] / "docs" / "environments.md").read_text()
    for known in tasks():
        kind = f"popgym-{known.name.removeprefix('popgym-').removesuffix('Easy')}*"
        levelled = known.family == "popgym" and not known.name.endswith("Easy")
        assert levelled or f"`{known.name}`" in page or f"`{kind}`" in page, known.name
    options = {name for known in tasks() for name in known.options}
    for found in re.findall(r"--options ((?:\w+=\w+ ?)+)", page):
        assert {pair.split("=")[0] for pair in found.split()} <= options
