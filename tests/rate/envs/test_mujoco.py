"""MuJoCo's walkers: Gymnasium's own physics, a limit, D4RL's scores; a search for policies to record."""

from __future__ import annotations

import dataclasses
import pickle

import gymnasium
import numpy as np
import pytest

from rate.data.recording import play
from rate.envs import make, task, tasks
from tests.rate.envs.helpers import check_task, recorded_trained_and_tried

pytest.importorskip("mujoco", reason="needs rate-kernels[mujoco]")

HOPPER = "mujoco-hopper"
IDS = {"mujoco-halfcheetah": "HalfCheetah-v5", HOPPER: "Hopper-v5", "mujoco-walker2d": "Walker2d-v5"}


def test_every_walker_is_there():
    assert IDS.keys() == {known.name for known in tasks("mujoco")}


@pytest.mark.parametrize("name", IDS)
def test_it_is_an_environment(name):
    check_task(name, max_steps=100)


@pytest.mark.parametrize("name", IDS)
def test_steps_are_gymnasiums(name):
    ours, theirs = make(name, max_steps=30), gymnasium.make(IDS[name], max_episode_steps=30)
    rng = np.random.default_rng(0)
    for seed in range(2):
        np.testing.assert_array_equal(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
        ended = False
        while not ended:
            action = rng.uniform(-1, 1, ours.action_space.shape).astype(np.float32)
            (seen, *one), (expected, *other) = ours.step(action), theirs.step(action)
            np.testing.assert_array_equal(seen, expected)
            assert one[0] == other[0] and one[1] == other[1] and one[2] == (other[2] and not other[1])
            ended = one[1] or one[2]
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        ours.step(action)


def test_warnings_are_logged_and_not_written_to_the_current_folder(tmp_path, monkeypatch, caplog):
    import mujoco

    monkeypatch.chdir(tmp_path)
    env = make("mujoco-walker2d")
    env.reset(seed=0)
    env.data.qpos[:] = np.nan
    mujoco.mj_step(env.model, env.data)
    assert "Nan, Inf or huge value in QPOS" in caplog.text  # or through dm_control, where it was first
    assert list(tmp_path.iterdir()) == []


def test_a_copy_keeps_its_limit():
    assert pickle.loads(pickle.dumps(make(HOPPER, max_steps=7))).max_steps == 7


def test_scores_are_d4rls():
    score = task(HOPPER).score
    assert score.of(np.array([-20.272305, 3234.3])).tolist() == [0, 100] and score.label == "D4RL score"
    figures = [figure for figure in task(HOPPER).figures if figure.model == "RATE"]
    assert [figure.value for figure in figures] == [112.5, 77.4, 83.7]  # medium-expert, medium, medium-replay
    means = [
        np.mean([f.value for t in tasks("mujoco") for f in t.figures if f.model == m]) for m in ("RATE", "DT")
    ]
    assert np.round(means, 1).tolist() == [78.5, 74.7]  # the table's own means


@pytest.mark.parametrize("max_steps", [0, 1.5])
def test_bad_options_are_named(max_steps):
    with pytest.raises((ValueError, TypeError), match=f"max_steps must be .*, got {max_steps}"):
        make(HOPPER, max_steps=max_steps)


@pytest.fixture
def short(monkeypatch, tmp_path):
    """A search of seconds, kept in a folder of its own."""
    from rate.envs.mujoco import search

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    quick = dataclasses.replace(search.SEARCHES[HOPPER], env_steps=8000)
    monkeypatch.setitem(search.SEARCHES, HOPPER, quick)
    return search


def test_the_search_gets_better_and_is_repeatable(short, tmp_path):
    found = short.rounds(short.SEARCHES[HOPPER])
    assert found.weights.shape[1:] == (3, 11) and len(found.weights) == len(found.returns) > 5
    assert found.returns[-3:].mean() > 1.5 * found.returns[0] > 0
    (file,) = tmp_path.rglob("*.npz")
    kept = file.read_bytes()
    again = short.rounds(short.SEARCHES[HOPPER])
    np.testing.assert_array_equal(found.weights, again.weights)
    assert file.read_bytes() == kept
    other = short.run(dataclasses.replace(short.SEARCHES[HOPPER], env_steps=1500))
    np.testing.assert_array_equal(other.weights, found.weights[: len(other.weights)])


def test_recorded_episodes_are_of_all_sorts_and_follow_from_their_seeds(short):
    played = list(play(task(HOPPER), 0, 12, policy="rate.envs.mujoco.search:policy", num_envs=4))
    returns = [one.recording.rewards.sum() for one in played]
    assert max(returns) > 2 * min(returns)
    alone = next(iter(play(task(HOPPER), 5, 6, policy="rate.envs.mujoco.search:policy")))
    np.testing.assert_array_equal(alone.recording.actions, played[5].recording.actions)
    best = play(task(HOPPER), 0, 6, policy="rate.envs.mujoco.search:best")
    assert np.mean([one.recording.rewards.sum() for one in best]) > np.mean(returns)


def test_the_search_is_for_these_tasks_alone(short):
    with pytest.raises(ValueError, match=r"env must be of one of mujoco-hopper, .*, got "):
        short.policy(gymnasium.make_vec("CartPole-v1", 1, vectorization_mode="sync"))


@pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")
def test_from_recording_to_evaluation(short, tmp_path, capsys):
    (row,) = recorded_trained_and_tried(
        HOPPER, tmp_path, "max_steps=60", policy="rate.envs.mujoco.search:policy"
    )
    assert row["measure"] == "D4RL score" and row["target_return"] == "3600" and row["temperature"] == "0"
    said = " ".join(capsys.readouterr().out.split())
    assert "the paper's figures are for max_steps 1000: --options" in said
    assert any(str(f) == "112.5 ± 0.2" and f.source.endswith("medium-expert") for f in task(HOPPER).figures)
