"""Atari: Dopamine's preprocessing, by Gymnasium's wrappers as the reference; seeds; limits."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from rate.envs import make, task, tasks
from tests.rate.envs.helpers import check_task, recorded_trained_and_tried

ale_py = pytest.importorskip("ale_py", reason="needs rate-kernels[atari]")
pytest.importorskip("cv2", reason="needs rate-kernels[atari]")

NAMES = [known.name for known in tasks("atari")]


def test_it_is_an_environment():
    check_task("atari-pong", max_steps=40)


@pytest.mark.parametrize(("name", "actions"), list(zip(NAMES, (4, 6, 18, 6), strict=True)))
def test_views_and_rewards_are_those_of_gymnasiums_wrappers(name, actions):
    gymnasium.register_envs(ale_py)
    title = {"atari-breakout": "Breakout", "atari-qbert": "Qbert", "atari-seaquest": "Seaquest"}.get(
        name, "Pong"
    )
    theirs = gymnasium.make(
        f"ALE/{title}-v5", frameskip=1, repeat_action_probability=0.0, full_action_space=False
    )
    theirs = gymnasium.wrappers.AtariPreprocessing(theirs, frame_skip=4, noop_max=0)
    theirs = gymnasium.wrappers.FrameStackObservation(theirs, 4, padding_type="zero")
    ours = make(name, sticky=0.0)
    assert ours.action_space.n == theirs.action_space.n == actions
    assert ours.observation_space.shape == (4, 84, 84) and ours.observation_space.dtype == np.uint8
    rng, earned = np.random.default_rng(0), 0.0
    seen, expected = ours.reset(seed=0)[0], theirs.reset(seed=0)[0]
    for _ in range(160):
        np.testing.assert_array_equal(seen, expected)
        action = int(rng.integers(actions))
        (seen, *one), (expected, *other) = ours.step(action), theirs.step(action)
        assert one[:3] == other[:3] and one[3]["lives"] == other[3]["lives"]
        earned += abs(one[0])
        if one[1]:
            seen, expected = ours.reset(seed=1)[0], theirs.reset(seed=1)[0]
    assert earned > 0 or name == "atari-seaquest"  # where one has to dive first


def _play(env, seed, steps=40):
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    views = [observation]
    for _ in range(steps):
        views.append(env.step(int(rng.integers(env.action_space.n)))[0])
    return np.stack(views)


def test_an_episode_follows_from_its_seed_and_actions():
    env = make("atari-breakout")
    first, again = _play(env, 5), _play(env, 5)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(_play(make("atari-breakout"), 5), first)
    assert not first[0, :3].any() and first[0, 3].any()  # nothing before the start
    np.testing.assert_array_equal(first[1:, :3], first[:-1, 1:])  # each stack is the one before, shifted


def test_actions_stick_by_chance():
    """The same actions under other seeds differ where they stick, and are the same where they do not."""

    def views(sticky, seed):
        env = make("atari-seaquest", sticky=sticky)
        env.reset(seed=seed)
        return np.stack([env.step(step % 18)[0] for step in range(40)])

    np.testing.assert_array_equal(views(0.0, 1), views(0.0, 2))
    assert (views(0.25, 1) != views(0.25, 2)).any()


def test_time_and_the_last_life_end_an_episode():
    env = make("atari-breakout", max_steps=3)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(0)
    env = make("atari-breakout")
    _, info = env.reset(seed=0)
    lives, terminated = [info["lives"]], False
    while not terminated:
        *_, terminated, truncated, info = env.step(1)
        lives.append(info["lives"])
        assert not truncated
    assert sorted(set(lives)) == [0, 1, 2, 3, 4, 5] and lives == sorted(lives, reverse=True)


def test_scores_are_points_and_of_humans():
    (human,) = task("atari-breakout").more_scores
    assert human.of(np.array([1.7, 30.5])).tolist() == [0, 100] and human.label == "human-normalised"
    assert task("atari-breakout").score.label == "return"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sticky": 1.0}, "sticky must be a probability below 1, got 1"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make("atari-pong", **options)


def test_bad_actions_and_games_are_named():
    from rate.envs.atari.env import Atari

    env = make("atari-breakout")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action must be one of 0 noop, 1 fire, 2 right, 3 left, got 4"):
        env.step(4)
    with pytest.raises(ValueError, match="game must be one of the emulator's, got 'chess'"):
        Atari("chess")


@pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")
def test_from_recording_to_evaluation(tmp_path, capsys):
    rows = recorded_trained_and_tried(
        "atari-breakout", tmp_path, "max_steps=12", policy="rate.envs.policy:uniform"
    )
    assert [row["measure"] for row in rows] == ["return", "human-normalised"]
    assert rows[0]["steps"] == "12" and [row["paper_rate"] for row in rows] == ["", ""]
    assert "the paper's figures are for max_steps 27000: --options" in capsys.readouterr().out
    assert str(next(f for f in task("atari-breakout").figures if f.model == "RATE")).startswith("111")
