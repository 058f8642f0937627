"""Collections: what is recorded, whoever plays, in one go or in several."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

from rate.cli import main
from rate.data import MinariEpisodes, collect
from rate.data import collection as collection_module
from rate.data.collection import parts_folder
from rate.data.recording import play
from rate.envs import make, task

AAR = "associative-retrieval"
OPTIONS = {"length": 7}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")


class Wanderer:
    """Waits for a while drawn for each episode, then leaves; a policy as a user writes one."""

    seen_rewards: ClassVar[list[np.ndarray]] = []

    def __init__(self, env):
        self.count, self.patience, self.step = env.num_envs, np.zeros(env.num_envs), np.zeros(env.num_envs)

    def start(self, env_ids, seeds):
        self.step[env_ids] = 0
        self.patience[env_ids] = [np.random.default_rng(seed).integers(6) for seed in seeds]

    def act(self, observations, rewards):
        assert observations.shape == (self.count, 3) and rewards.shape == (self.count,)
        self.seen_rewards.append(rewards)
        self.step += 1
        return np.where(self.step > self.patience, 1, 2)


def wanderer(env):
    return Wanderer(env)


class Guesser:
    seen_rewards: ClassVar[list[np.ndarray]] = []

    def start(self, env_ids, seeds):
        pass

    def act(self, observations, rewards):
        self.seen_rewards.append(rewards)
        return np.zeros_like(observations)


def guesser(env):
    return Guesser()


def nobody(env):
    return object()


WANDERER = f"{__name__}:wanderer"


def _arrays(folder):
    source = MinariEpisodes(folder)
    return [
        (e.observations.tolist(), e.actions.tolist(), e.rewards.tolist())
        for e in map(source.__getitem__, range(len(source)))
    ]


def test_a_set_holds_what_was_played_and_names_its_environment(tmp_path):
    made = collect(tmp_path / "set", task(AAR), 20, options=OPTIONS)
    source = MinariEpisodes(made.path)
    assert source.lengths.tolist() == made.lengths.tolist() == [7] * 20
    assert made.successes.all() and (made.returns == 1).all()
    ways = [episode.actions[0] for episode in map(source.__getitem__, range(20))]
    assert {0, 1} == set(ways)
    for episode in map(source.__getitem__, range(20)):
        assert episode.actions.tolist() == [episode.actions[0], 2, 2, 2, 2, 2, episode.actions[0]]
    env = source.recover_environment()
    assert type(env.unwrapped).__name__ == "AssociativeRetrieval" and env.unwrapped.length == 7
    metadata = json.loads((made.path / "data" / "metadata.json").read_text())
    assert metadata["algorithm_name"] == "scripted expert" and "'length': 7" in metadata["description"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("policy", [None, WANDERER])
def test_episodes_do_not_depend_on_how_many_play_at_once(tmp_path, policy):
    def episodes(name, num_envs, seed=3):
        options = {"policy": policy, "options": OPTIONS, "seed": seed, "num_envs": num_envs}
        return _arrays(collect(tmp_path / name, task(AAR), 11, **options).path)

    assert episodes("one", 1) == episodes("four", 4) == episodes("many", 64) != episodes("other", 4, seed=4)


def test_environments_of_one_process_each_give_the_same_episodes():
    pytest.importorskip("minigrid", reason="needs rate-kernels[minigrid]")
    games = [
        list(play(task("minigrid-memory"), 0, 5, num_envs=2, processes=processes, options={"size": 7}))
        for processes in (False, True)
    ]
    for one, other in zip(*games, strict=True):
        np.testing.assert_array_equal(one.recording.observations, other.recording.observations)
        np.testing.assert_array_equal(one.recording.actions, other.recording.actions)


def test_an_episode_is_what_replaying_its_actions_gives():
    pytest.importorskip("minigrid", reason="needs rate-kernels[minigrid]")
    from rate.data.recording import _episode_seed

    for played in play(task("minigrid-memory"), 2, 6, seed=9, num_envs=3, options={"size": 7}):
        env = make("minigrid-memory", size=7)
        observations, rewards = [env.reset(seed=_episode_seed(9, played.index))[0]], []
        for action in played.recording.actions:
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(observation)
            rewards.append(reward)
        np.testing.assert_array_equal(observations, played.recording.observations)
        assert rewards == played.recording.rewards.tolist()
        assert (terminated, truncated) == (played.recording.terminated, played.recording.truncated)


def test_rewards_reach_the_policy():
    pytest.importorskip("popgym", reason="needs rate-kernels[popgym]")
    Wanderer.seen_rewards.clear()
    list(play(task(AAR), 0, 3, policy=WANDERER, num_envs=1, options={"length": 3, "failure_reward": -5.0}))
    assert not np.any(
        Wanderer.seen_rewards
    )  # all but the last step's, and by then the next episode has begun
    (played,) = play(task("popgym-RepeatFirstEasy"), 0, 1, policy=f"{__name__}:guesser", num_envs=1)
    told = np.ravel(Guesser.seen_rewards).tolist()
    assert any(told) and told == [0.0, *played.recording.rewards[:-1].tolist()]


class Interrupted(Exception):
    pass


def _interrupt(monkeypatch, after, error):
    def until(*arguments, **settings):
        for number, played in enumerate(play(*arguments, **settings)):
            if number == after:
                raise error
            yield played

    monkeypatch.setattr(collection_module, "play", until)


@pytest.mark.parametrize("error", [KeyboardInterrupt, Interrupted])
def test_an_interrupted_collection_goes_on(tmp_path, monkeypatch, error):
    whole = collect(tmp_path / "whole", task(AAR), 30, policy=WANDERER, options=OPTIONS)
    settings = {"policy": WANDERER, "options": OPTIONS}
    for after in (8, 0, 5):
        with monkeypatch.context() as patched:
            _interrupt(patched, after, error)
            with pytest.raises(error):
                collect(tmp_path / "set", task(AAR), 30, resume=True, **settings)
    assert not (tmp_path / "set").exists()
    kept = parts_folder(tmp_path / "set")
    assert json.loads((kept / "collection.json").read_text())["policy"] == WANDERER
    with pytest.raises(FileExistsError, match="an interrupted collection of 13 episodes is at"):
        collect(tmp_path / "set", task(AAR), 30, **settings)
    begun = []
    monkeypatch.setattr(collection_module, "play", lambda *a, **k: begun.append(a[1]) or play(*a, **k))
    made = collect(tmp_path / "set", task(AAR), 30, resume=True, num_envs=3, **settings)
    assert begun == [13] and _arrays(made.path) == _arrays(whole.path) and not kept.exists()
    assert (
        made.lengths.tolist() == whole.lengths.tolist()
        and made.successes.tolist() == whole.successes.tolist()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed must be 0 as in the interrupted collection at .*, got 1"),
        ({"options": {"length": 8}}, "options must be {'length': 7, .* got {'length': 8"),
        ({"policy": None}, "policy must be '.*:wanderer' as in .*, got None"),
    ],
)
def test_a_collection_goes_on_only_as_it_began(tmp_path, monkeypatch, change, message):
    settings = {"policy": WANDERER, "options": OPTIONS}
    with monkeypatch.context() as patched:
        _interrupt(patched, 4, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            collect(tmp_path / "set", task(AAR), 10, **settings)
    with pytest.raises(ValueError, match=message):
        collect(tmp_path / "set", task(AAR), 10, resume=True, **(settings | change))
    made = collect(tmp_path / "set", task(AAR), 10, overwrite=True, **(settings | change))
    assert len(made.lengths) == 10 and not parts_folder(tmp_path / "set").exists()


def test_a_killed_process_leaves_nothing_behind_for_good(tmp_path):
    killed = """
import os, sys
from rate.data import collect, collection
from rate.envs import task
written = collection.write_minari
def write(output, recordings, **settings):
    def some():
        for number, recording in enumerate(recordings):
            if number == 5:
                os.kill(os.getpid(), 9)
            yield recording
    return written(output, some(), **settings)
collection.write_minari = write
collect(sys.argv[1], task("associative-retrieval"), 12, options={"length": 7})
"""
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path / "set")], capture_output=True)
    assert done.returncode == -9
    assert sorted(entry.name[:5] for entry in tmp_path.iterdir()) == [".set-", ".set."]
    (tmp_path / ".set-another-12345678").mkdir()  # of another set
    made = collect(tmp_path / "set", task(AAR), 12, options=OPTIONS, resume=True)
    assert _arrays(made.path) == _arrays(collect(tmp_path / "whole", task(AAR), 12, options=OPTIONS).path)
    assert {entry.name for entry in tmp_path.iterdir()} == {".set-another-12345678", "set", "whole"}


def test_fewer_episodes_than_were_kept_are_the_first_of_them(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        _interrupt(patched, 9, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            collect(tmp_path / "set", task(AAR), 20, options=OPTIONS)
    whole = _arrays(collect(tmp_path / "whole", task(AAR), 20, options=OPTIONS).path)
    assert _arrays(collect(tmp_path / "set", task(AAR), 6, options=OPTIONS, resume=True).path) == whole[:6]


def test_parts_are_written_while_others_play(tmp_path, monkeypatch):
    from rate.data import parts as parts_module

    monkeypatch.setattr(parts_module, "_BYTES", 300)  # an episode's observations have 96
    files = []
    monkeypatch.setattr(parts_module, "write_atomically", lambda f, w: files.append(f.name) or w(f))
    made = collect(tmp_path / "set", task(AAR), 10, options=OPTIONS)
    assert files == ["part-0000000.npz", "part-0000004.npz", "part-0000008.npz"]
    assert _arrays(made.path) == _arrays(collect(tmp_path / "plain", task(AAR), 10, options=OPTIONS).path)


def test_images_are_kept_without_loss_and_small(tmp_path):
    pytest.importorskip("minigrid", reason="needs rate-kernels[minigrid]")
    made = collect(tmp_path / "set", task("minigrid-memory"), 6, options={"size": 7})
    source = MinariEpisodes(made.path)
    for played in play(task("minigrid-memory"), 0, 6, options={"size": 7}):
        np.testing.assert_array_equal(source[played.index].observations, played.recording.observations[:-1])
    stored = (made.path / "data" / "main_data.hdf5").stat().st_size
    assert stored < 0.15 * sum(source[i].observations.nbytes for i in range(6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("chess", "task 'chess' is not known"),
        ("tmaze --episodes 0", "num_episodes must be at least 1, got 0"),
        (f"{AAR} --episodes 0", "episodes must be at least 1, got 0"),
        (f"{AAR} --num-envs 0", "num_envs must be at least 1, got 0"),
        (f"{AAR} --seed -1", "seed must not be negative, got -1"),
        (f"{AAR} --options length", "options must be NAME=VALUE, got 'length'"),
        (f"{AAR} --options size=3", f"{AAR} has no option 'size'; known are length, noise"),
        (f"{AAR} --options length=1", "length must be at least 2, got 1"),
        (f"{AAR} --options length=long", "length must be an integer, got 'long'"),
        (f"{AAR} --corridor 3", f"--corridor is an option of tmaze, got it with {AAR}"),
        (f"{AAR} --policy wanderer", "policy must be module:function, got 'wanderer'"),
        (f"{AAR} --policy no_such_module:policy", "No module named 'no_such_module'"),
        (f"{AAR} --policy {__name__}:no_such_policy", f"the module {__name__} has no no_such_policy"),
        (f"{AAR} --policy {__name__}:nobody", "must give an object with start and act, got <object object"),
        (
            f"tmaze --policy {WANDERER} --corridor 3 4",
            "--corridor must be one length for a policy, got (3, 4)",
        ),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, arguments, message):
    assert main(["collect", *arguments.split(), "--output", str(tmp_path / "set")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("rate collect: ") and message in err
    assert list(tmp_path.iterdir()) == []


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "class Still:\n"
        "    def __init__(self, env): self.actions = env.action_space.sample() * 0 + 2\n"
        "    def start(self, env_ids, seeds): pass\n"
        "    def act(self, observations, rewards): return self.actions\n"
    )
    assert main(["collect", AAR, "--episodes", "4", "--options", "length=5", "noise=false"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"4 episodes in {tmp_path}/{AAR}/expert-v0",
        "return 1.000 (1.000 to 1.000), 5.0 steps (5 to 5), success 1.00",
        f"train on them: rate train --dataset {AAR}/expert-v0",
    ]
    assert not MinariEpisodes(f"{AAR}/expert-v0")[0].observations[:, 2].any()
    assert main(["collect", AAR, "--episodes", "4", "--policy", "mine:Still"]) == 0
    assert "success 0.00" in capsys.readouterr().out and len(MinariEpisodes(f"{AAR}/Still-v0")) == 4
    assert (
        main(
            [
                "collect",
                "tmaze",
                "--policy",
                "rate.envs.tmaze.expert:expert",
                "--corridor",
                "3",
                "--episodes",
                "40",
            ]
        )
        == 0
    )
    assert set(MinariEpisodes("tmaze/expert-v0").lengths) == {4}
    actions = [MinariEpisodes("tmaze/expert-v0")[i].actions[-1] for i in range(40)]
    assert {1, 3} == set(actions)


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        _interrupt(patched, 3, KeyboardInterrupt)
        assert main(["collect", AAR, "--episodes", "9", "--output", str(tmp_path / "set")]) == 130
    assert "go on with the same command and --resume" in capsys.readouterr().err
    assert main(["collect", AAR, "--episodes", "9", "--output", str(tmp_path / "set"), "--resume"]) == 0
    assert len(MinariEpisodes(tmp_path / "set")) == 9
