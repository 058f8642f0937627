"""The rules of the T-Maze, one environment at a time."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import rate.envs  # noqa: F401 - registers the environment
from rate.envs import TMaze

RIGHT, UP, LEFT, DOWN = range(4)


def play(env, actions):
    """The steps' (observation, reward, terminated, truncated, info)."""
    return [env.step(action) for action in actions]


def test_passes_gymnasiums_checker_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("rate/TMaze-v0", corridor_length=9).unwrapped)


def test_a_perfect_episode_step_by_step():
    env = TMaze(corridor_length=3, noise=False)
    observation, info = env.reset(seed=0, options={"goal": -1})
    assert observation.tolist() == [0, -1, 0, 0] and observation.dtype == np.float32
    assert info == {"x": 0, "goal": -1}
    steps = play(env, [RIGHT, RIGHT, RIGHT, DOWN])
    assert [step[0].tolist() for step in steps] == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [-1, 0, 1, 0]]
    assert [step[1] for step in steps] == [0, 0, 0, 1]
    assert [step[2] for step in steps] == [False, False, False, True]
    assert not any(step[3] for step in steps)
    assert "success" not in steps[2][4] and steps[3][4] == {"x": 3, "goal": -1, "success": True}


def test_the_wrong_end_terminates_without_reward():
    env = TMaze(1, goal_reward=5.0)
    env.reset(seed=0, options={"goal": 1})
    *_, (observation, reward, terminated, truncated, info) = play(env, [RIGHT, DOWN])
    assert (observation[0], reward, terminated, truncated, info["success"]) == (-1, 0, True, False, False)


def test_blocked_moves_stay_and_time_runs_out_after_two_spare_steps():
    env = TMaze(2, noise=False)
    env.reset(seed=0)
    steps = play(env, [LEFT, UP, DOWN, RIGHT])  # three blocked moves, then one that counts
    assert [step[4]["x"] for step in steps] == [0, 0, 0, 1]
    assert [step[3] for step in steps] == [False, False, False, True]
    assert steps[-1][4]["success"] is False and steps[-1][1] == 0


def test_the_junction_is_a_wall_on_the_right():
    env = TMaze(1)
    env.reset(seed=0)
    assert [step[4]["x"] for step in play(env, [RIGHT, RIGHT])] == [1, 1]


def test_penalty_falls_on_late_steps_only():
    env = TMaze(3, penalty=-0.5)
    env.reset(seed=0, options={"goal": 1})
    assert [step[1] for step in play(env, [RIGHT, LEFT, RIGHT, RIGHT, RIGHT])] == [0, -0.5, -0.5, -0.5, 0]
    env.reset(options={"goal": 1})
    assert [step[1] for step in play(env, [LEFT, RIGHT, RIGHT, RIGHT, UP])] == [-0.5, -0.5, -0.5, -0.5, 1]


def test_the_hint_lasts_for_hint_steps_observations():
    env = TMaze(5, hint_steps=3)
    first, _ = env.reset(seed=0, options={"goal": 1})
    assert [first[1], *(step[0][1] for step in play(env, [RIGHT] * 4))] == [1, 1, 1, 0, 0]


def test_goal_and_noise_are_drawn_evenly_and_follow_the_seed():
    env = TMaze(1)
    env.reset(seed=3)
    firsts = np.array([env.reset()[0] for _ in range(600)])
    assert 240 < (firsts[:, 1] == 1).sum() < 360
    assert all(150 < (firsts[:, 3] == value).sum() < 250 for value in (-1, 0, 1))
    env.reset(seed=3)
    assert np.array_equal(firsts, [env.reset()[0] for _ in range(600)])


def test_render_shows_agent_and_goal():
    env = TMaze(3, render_mode="ansi")
    env.reset(seed=0, options={"goal": 1})
    env.step(RIGHT)
    assert env.render() == "   G\n.A..\n   ."


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: TMaze(0), "corridor_length must be at least 1, got 0"),
        (lambda: TMaze(2, hint_steps=0), "hint_steps must be at least 1, got 0"),
        (lambda: TMaze(2, penalty=float("nan")), "penalty must be finite, got nan"),
        (lambda: TMaze(2, render_mode="human"), "render_mode must be 'ansi' or None, got 'human'"),
        (lambda: TMaze(2).reset(options={"goal": 2}), r"options\['goal'\] must be \+1 or -1, got 2"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()


def test_a_corridor_of_no_whole_length_is_a_type_error():
    with pytest.raises(TypeError, match=r"^corridor_length must be an integer, got 2\.5$"):
        TMaze(2.5)


def test_steps_need_a_running_episode_and_a_known_action():
    env = TMaze(1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(RIGHT)
    env.reset(seed=0)
    with pytest.raises(
        ValueError, match=r"^action must be 0 \(right\), 1 \(up\), 2 \(left\) or 3 \(down\), got 4$"
    ):
        env.step(4)
    play(env, [RIGHT, UP])
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(RIGHT)
