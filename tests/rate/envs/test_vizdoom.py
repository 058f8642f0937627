"""Two-Colors: what heals and what hurts, what may be seen, an expert, files in their place."""

from __future__ import annotations

import os

import gymnasium
import numpy as np
import pytest

from rate.envs import make, task
from rate.evaluation import Evaluation
from rate.protocol import Trial, report
from tests.rate.envs.helpers import check_task, expert_plays, mean_return, recorded_trained_and_tried

pytest.importorskip("vizdoom", reason="needs rate-kernels[vizdoom]")
pytest.importorskip("cv2", reason="needs rate-kernels[vizdoom]")

NAME = "vizdoom-two-colors"
LEFT, RIGHT, FORWARD = range(3)


@pytest.fixture(scope="module")
def env():
    made = make(NAME, max_steps=400)
    yield made
    made.close()


def test_it_is_an_environment():
    check_task(NAME, max_steps=80)


def test_the_spaces_are_those_of_the_paper():
    env = make(NAME)
    assert env.observation_space.shape == (3, 64, 112) and env.observation_space.dtype == np.uint8
    assert env.action_space.n == 5 and task(NAME).target_returns == (56.5,)
    assert env.max_steps == task(NAME).max_steps == 2100


def _contrast(view):
    """By how much the middle, where the pillar stands, is redder than what is beside it; negative for greener."""
    red, green = view[:2, 24:36].astype(float)
    return (red - green)[:, 54:58].mean() - (red - green)[:, 44:50].mean()


@pytest.mark.parametrize("colour", ["red", "green"])
def test_the_pillar_shows_its_colour_for_45_steps(env, colour):
    observation, info = env.reset(seed=2, options={"colour": colour})
    assert info["is_red"] == (colour == "red")
    views = [observation]
    for _ in range(30):  # a little to the left and back again
        env.step(LEFT)
        views.append(env.step(RIGHT)[0])
    contrasts = [(1 if colour == "red" else -1) * _contrast(view) for view in views]
    assert min(contrasts[:22]) > 30 and max(map(abs, contrasts[24:])) < 10  # gone with tic 90, step 45


@pytest.mark.parametrize("colour", ["red", "green"])
@pytest.mark.parametrize("right", [True, False])
def test_gems_of_the_pillars_colour_heal_and_earn_and_the_others_hurt(env, colour, right):
    from rate.envs.vizdoom.expert import Plans

    _, info = env.reset(seed=5, options={"colour": colour})
    plans, health, taken = Plans(tics=2), info["health"], 0
    wanted, other = ("red", "green") if (colour == "red") == right else ("green", "red")
    while taken < 2:
        before = env.surroundings()
        for action in plans.best(before, wanted == "red", turned=0):
            before = env.surroundings()
            _, reward, terminated, truncated, info = env.step(action)
            assert not (terminated or truncated)
            after = env.surroundings()
            gone = _gone(getattr(before, wanted), getattr(after, wanted))
            assert _gone(getattr(before, other), getattr(after, other)) == 0
            taken += gone
            change = info["health"] - health
            expected = min(25 * gone, 100 - health) if right else -25 * gone
            assert change in (expected, expected - 8)  # the acid takes 8 now and then
            assert reward == pytest.approx(0.02 + (change > 0))
            health = info["health"]


def _gone(before, after):
    return len({tuple(place) for place in before.round(3)} - {tuple(place) for place in after.round(3)})


def test_an_episode_follows_from_its_seed_and_actions(env):
    def play(seed):
        observation, info = env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        views = [observation] + [env.step(int(rng.integers(5)))[0] for _ in range(40)]
        return np.stack(views), info["is_red"]

    (first, red), (other, _), (again, red_again) = play(7), play(8), play(7)
    np.testing.assert_array_equal(first, again)
    assert red == red_again and (first != other).any()
    fresh = make(NAME)
    np.testing.assert_array_equal(fresh.reset(seed=7)[0], first[0])
    fresh.close()


def test_both_colours_are_drawn(env):
    assert {env.reset(seed=seed)[1]["is_red"] for seed in range(8)} == {True, False}


def test_an_end_says_the_return_of_its_colour(env):
    for colour in ("red", "green"):
        env.reset(seed=3, options={"colour": colour})
        earned, ended, steps = 0.0, False, 0
        while not ended:
            assert env.surroundings() is not None
            _, reward, terminated, truncated, info = env.step(LEFT)
            earned, ended, steps = earned + reward, terminated or truncated, steps + 1
        assert terminated and info["health"] <= 0 and 190 <= steps <= 210  # 100 health, 8 every 16 steps
        assert [key for key in info if key.endswith("_return")] == [f"{colour}_return"]
        assert info[f"{colour}_return"] == pytest.approx(earned)
        assert env.surroundings() is None
        with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
            env.step(LEFT)


def test_the_expert_lives_on_what_the_pillar_said():
    played = expert_plays(NAME, 8, seed=1, num_envs=4, max_steps=150)
    assert all(one.recording.truncated for one in played)  # all survive
    assert 7.0 < mean_return(played) < 12.0  # 8.1 in the reference, 2.4 of a random policy
    assert played[0].recording.observations.shape == (151, 3, 64, 112)
    again = expert_plays(NAME, 1, seed=1, num_envs=1, max_steps=150)
    np.testing.assert_array_equal(again[0].recording.actions, played[0].recording.actions)


def test_plans_reach_what_is_wanted_and_go_round_the_rest():
    from rate.envs.vizdoom.env import Surroundings
    from rate.envs.vizdoom.expert import Plans

    def first(red, green):
        here = np.zeros(2)
        return Plans(tics=2).best(Surroundings(here, here, 0.0, np.array(red), np.array(green)), False, 0)

    nothing = np.zeros((0, 2))
    assert first(nothing, [[200.0, 0.0]]) == [FORWARD] * 4
    assert first([[100.0, 0.0]], [[200.0, 0.0]])[0] != FORWARD
    assert first(nothing, [[0.0, 200.0]])[0] in (LEFT, 3) and first(nothing, [[0.0, -200.0]])[0] in (RIGHT, 4)
    assert (
        first([[5.0, 5.0]], [[200.0, 0.0]]) == [FORWARD] * 4
    )  # one that lies on the player cannot be avoided


def test_nothing_is_left_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    env = make(NAME)
    env.reset(seed=0)
    env.step(FORWARD)
    assert os.getcwd() == str(tmp_path) and [path.name for path in tmp_path.iterdir()] == ["cache"]
    folder = env._folder.name
    env.close()
    assert not os.path.exists(folder)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".wad"]


def test_the_scenario_has_the_same_bytes_and_is_made_again_when_damaged(tmp_path, monkeypatch):
    from rate.envs.vizdoom.wad import scenario, scenario_path

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert scenario(90) == scenario(90) != scenario(91)
    path = scenario_path(90)
    path.write_bytes(b"PWAD")
    assert scenario_path(90) == path and path.read_bytes() == scenario(90)
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    with pytest.raises(OSError, match=r"cannot keep the scenario at .*; set XDG_CACHE_HOME"):
        scenario_path(90)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"frame_skip": 0}, "frame_skip must be at least 1, got 0"),
        ({"cue_tics": 0}, "cue_tics must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(NAME, **options)


def test_bad_actions_and_colours_are_named(env):
    with pytest.raises(ValueError, match="options\\['colour'\\] must be red or green, got 'blue'"):
        env.reset(options={"colour": "blue"})
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action must be 0 \(left\), .*, got 5"):
        env.step(5)


@pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")
def test_from_recording_to_evaluation(tmp_path, capsys):
    rows = recorded_trained_and_tried(NAME, tmp_path, "max_steps=12")
    said = {row["measure"]: row["paper_rate"] for row in rows}
    assert len(said) in (2, 3)  # four episodes may all have one colour
    assert said.items() <= dict.fromkeys(("return", "return, red", "return, green"), "").items()
    assert "the paper's figures are for max_steps 2100: --options" in capsys.readouterr().out
    result = Evaluation(np.ones(4), np.full(4, 5), None, 1.0, {"red": np.ones(2), "green": np.ones(2)})
    printed = " ".join(report(Trial(task(NAME), task(NAME).options, 56.5, 1.0, result)).split())
    for figure in ("41.5 ± 1", "38.2 ± 5.1", "44.7 ± 5.8"):
        assert f"paper, RATE {figure} Table 5" in printed
