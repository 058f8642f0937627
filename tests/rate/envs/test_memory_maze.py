"""Memory Maze: seeds that cost a reset and not a new simulation, what can be known, a planner. Slow: few resets."""

from __future__ import annotations

import logging
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rate.cli import main
from rate.data.episodes import SpaceSpec
from rate.envs import make, task, tasks
from rate.envs.memory_maze import package
from tests.rate.envs.helpers import SMALL

pytest.importorskip("dm_control", reason="needs rate-kernels[memory-maze]")
try:
    package.tasks()
except ModuleNotFoundError:
    pytest.skip("needs rate-kernels[memory-maze]", allow_module_level=True)
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

NAME = "memory-maze-9x9"
FORWARD, LEFT, RIGHT = 1, 2, 3
ROUND = [1, 2, 1, 5, 1, 4, 1, 3]


@pytest.fixture(scope="module")
def env():
    made = make(NAME, max_steps=60, extra_observations=True)
    yield made
    made.close()


def _play(env, seed, steps):
    observation, _ = env.reset(seed=seed)
    played = [observation] + [env.step(ROUND[step % 8])[0] for step in range(steps)]
    return {name: np.stack([seen[name] for seen in played]) for name in observation}


def test_it_is_an_environment(env, recwarn):
    check_env(env, skip_render_check=True)
    said = [str(warning.message) for warning in recwarn]
    assert all("infinity" in text for text in said), said  # the extras are not bounded
    env.action_space.seed(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action must be 0 \(nothing\), .*, got 6"):
        env.step(6)
    for step in range(60):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert observation in env.observation_space and reward in (0, 1) and info == {}
        assert (terminated, truncated) == (False, step == 59)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(FORWARD)


def test_the_model_reads_its_pictures():
    plain = make(NAME)
    spec = SpaceSpec.from_space(plain.observation_space, "observation")
    assert spec.kind == "image" and spec.shape == (3, 64, 64) and spec.channels_last
    assert plain.action_space.n == 6 and plain.max_steps == 1000


def test_an_episode_follows_from_its_seed_and_actions(env):
    first, other, again = _play(env, 3, 12), _play(env, 4, 3), _play(env, 3, 12)
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)
    assert (first["maze_layout"][0] != other["maze_layout"][0]).any()
    fresh = make(NAME)
    np.testing.assert_array_equal(fresh.reset(seed=3)[0], first["image"][0])
    np.testing.assert_array_equal(fresh.step(ROUND[0])[0], first["image"][1])
    np.testing.assert_array_equal(fresh.surroundings()["agent_pos"], first["agent_pos"][1])
    fresh.close()
    assert fresh.surroundings() is None


def test_the_extras_say_where_things_are(env):
    seen = _play(env, 5, 8)
    layout = seen["maze_layout"][0]
    assert layout.shape == (9, 9) and 20 < layout.sum() < 81
    for places in (seen["agent_pos"], *np.moveaxis(seen["targets_pos"], 1, 0)):
        x, y = places[0].astype(int)
        assert layout[y, x] == 1
    assert (np.abs(seen["targets_pos"] - seen["target_pos"][:, None]).sum(-1) == 0).any(1).all()
    np.testing.assert_allclose(np.hypot(*seen["agent_dir"].T), 1, atol=0.05)
    border = seen["image"][:, 0, 0] / 255
    np.testing.assert_allclose(
        border, seen["target_color"] * 0.7, atol=0.01
    )  # what is wanted frames the picture


def test_contacts_are_found_as_by_the_stock_loop(env):
    """Rewards and positions are those of a simulation without the shortcut."""
    from rate.envs.memory_maze.expert import towards_target

    def rewarded(stock):
        observation, _ = env.reset(seed=1)
        if stock:
            for target in env._maze.task._targets:
                target._update_activation = type(target)._update_activation.__get__(target)
        played = []
        for _ in range(45):
            observation, reward, *_ = env.step(towards_target(observation))
            played.append((reward, *observation["agent_pos"]))
        return played

    quick = rewarded(stock=False)
    assert quick == rewarded(stock=True) and sum(reward for reward, *_ in quick) > 0
    env.close()  # the next reset builds another simulation, with the shortcut


def test_the_planner_finds_its_way():
    from rate.envs.memory_maze.expert import shortest_way, towards_target

    layout = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1]])  # [y, x]
    assert shortest_way(layout, (0, 0), (0, 2)) == [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2)]
    assert shortest_way(layout, (1, 0), (1, 0)) == [(1, 0)]
    assert shortest_way(np.array([[1, 0, 1]]), (0, 0), (2, 0)) == []

    def decide(place, heading, target):
        degrees = np.radians(heading)
        return towards_target(
            {
                "maze_layout": np.ones((9, 9), np.uint8),
                "agent_pos": np.array(place),
                "agent_dir": np.array([np.cos(degrees), np.sin(degrees)]),
                "target_pos": np.array(target),
            }
        )

    assert decide((1.5, 1.5), 0, (7.5, 1.5)) == FORWARD
    assert decide((1.5, 1.5), 0, (1.5, 7.5)) == LEFT and decide((1.5, 7.5), 0, (1.5, 1.5)) == RIGHT
    assert decide((1.5, 1.5), 20, (7.5, 1.5)) == 5 and decide((1.5, 1.5), -20, (7.5, 1.5)) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")
def test_from_recording_to_evaluation(tmp_path, capsys):
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    short = ["--options", "max_steps=75"]
    assert main(["collect", NAME, "--episodes", "2", "--num-envs", "1", "--output", data, *short]) == 0
    said = capsys.readouterr().out
    assert float(said.split("return ")[1].split()[0]) >= 1  # 1.9 in 75 steps at the planner's pace
    assert main(["train", "--dataset", data, "--run", run, *SMALL, "--training.eval-every", "0"]) == 0
    assert main(["eval", run, "--episodes", "1"]) == 0
    assert "the paper's figures are for max_steps 1000: --options" in capsys.readouterr().out
    assert any(str(f) == "7.64 ± 0.41" and f.source.startswith("Table 1") for f in task(NAME).figures)


def test_gym_stays_out_and_the_engine_quiet(caplog):
    assert "gym" not in sys.modules
    with caplog.at_level(logging.WARNING, "absl"):
        logging.getLogger("absl").warning("Cannot set velocity on Entity with no free joint.")
        logging.getLogger("absl").warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]


def test_triton_may_come_after_the_first_picture():
    """Two versions of a compiler library in one process: the other order crashed."""
    code = (
        "from rate.envs import make\n"
        "env = make('memory-maze-9x9')\n"
        "env.reset(seed=0)\n"
        "import torch._dynamo\n"
        "print('drawn')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        done.returncode == 0 and done.stdout == "drawn\n" and done.stderr == ""
    )  # not a word, and never closed


def test_without_a_way_to_draw_it_says_what_to_install(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(package, "find_library", lambda name: None)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(
        ImportError, match=r"neither libEGL nor libOSMesa: install one \(apt-get install libegl1"
    ):
        package.tasks.__wrapped__()


def test_sizes_and_limits():
    assert [(t.arguments["size"], t.max_steps) for t in tasks("memory-maze")] == [
        (9, 1000),
        (11, 2000),
        (13, 3000),
        (15, 4000),
    ]
    assert task(NAME).target_returns == (18.1,) and not task("memory-maze-15x15").figures


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"max_steps": 1001}, "max_steps must be at most 1000 at size 9, got 1001"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(NAME, **options)


def test_bad_sizes_are_named():
    from rate.envs.memory_maze.env import MemoryMaze

    with pytest.raises(ValueError, match="size must be one of 9, 11, 13, 15, got 10"):
        MemoryMaze(10)
