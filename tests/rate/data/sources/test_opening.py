"""open_source: layouts told apart by what files hold, and what is said where none fits."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from gymnasium import spaces

from rate.data import SpaceSpec, open_source, write_minari
from rate.data.sources import (
    D4RLEpisodes,
    DqnReplayEpisodes,
    GymPickleEpisodes,
    MinariEpisodes,
    NpzEpisodes,
    TMazePickleEpisodes,
)
from tests.rate.data.helpers import random_recordings
from tests.rate.data.sources import layouts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)


def _minari(output):
    observations, actions = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4)
    recordings = random_recordings(observations, actions, [3, 5])
    return write_minari(output, recordings, observation_space=observations, action_space=actions)


def _all(folder):
    """A set of each layout."""
    _minari(folder / "expert-v0")
    layouts.write_d4rl(folder / "hopper.hdf5", layouts.walks([3, 5]))
    layouts.write_pickle(folder / "hopper-medium-v2.pkl", layouts.walks([3, 5]))
    layouts.write_pickle(folder / "data_T_90.pickle", layouts.mazes([3, 5]), 0)
    layouts.write_chunk(folder / "Pong" / "1" / "replay_logs", 7, **layouts.frames([3, 5]))
    episodes = layouts.play(
        [3, 5], lambda rng, n: rng.normal(size=(n, 2)), lambda rng, n: rng.integers(0, 3, n)
    )
    layouts.write_npz(folder / "popgym", episodes)


PLACES = {
    "expert-v0": MinariEpisodes,
    "expert-v0/data": MinariEpisodes,
    "expert-v0/data/main_data.hdf5": MinariEpisodes,
    "hopper.hdf5": D4RLEpisodes,
    "hopper-medium-v2.pkl": GymPickleEpisodes,
    "data_T_90.pickle": TMazePickleEpisodes,
    "Pong": DqnReplayEpisodes,
    "Pong/1/replay_logs": DqnReplayEpisodes,
    "popgym": NpzEpisodes,
    "popgym/train_data_1.npz": NpzEpisodes,
}


def test_layouts_are_told_apart(tmp_path):
    _all(tmp_path)
    for place, layout in PLACES.items():
        source = open_source(place)
        assert type(source) is layout, place
        assert source.lengths.tolist() == ([5] if place.endswith(".npz") else [3, 5])
        assert source[len(source) - 1].length == 5
        assert source.files() and all(path.is_file() for path in source.files())


def test_names_do_not_matter(tmp_path):
    _all(tmp_path)
    shutil.move("hopper.hdf5", "data_T_1.pickle")
    shutil.move("hopper-medium-v2.pkl", "anything")
    assert isinstance(open_source("data_T_1.pickle"), D4RLEpisodes)
    assert isinstance(open_source("anything"), GymPickleEpisodes)


def test_a_folder_with_one_file_is_that_file(tmp_path):
    layouts.write_d4rl(tmp_path / "hopper.hdf5", layouts.walks([3, 5]))
    (tmp_path / "README").write_text("medium")
    assert isinstance(open_source(tmp_path), D4RLEpisodes)
    layouts.write_pickle(tmp_path / "hopper.pkl", layouts.walks([3]))
    with pytest.raises(ValueError, match=r"holds 2 data sets, name one of them: hopper.hdf5, hopper.pkl"):
        open_source(tmp_path)


def test_minari_ids_come_after_paths(tmp_path):
    _minari("demo/expert-v0")
    assert isinstance(open_source("demo/expert-v0"), MinariEpisodes)
    layouts.write_npz(
        tmp_path / "demo" / "expert-v0",
        layouts.play([2], lambda rng, n: rng.normal(size=(n, 2)), lambda rng, n: rng.integers(0, 3, n)),
    )
    assert isinstance(open_source("demo/expert-v0"), NpzEpisodes)


def test_nothing_there_is_said():
    with pytest.raises(
        FileNotFoundError, match=r"no/such-v0 is neither .*, and no Minari data set 'no/such-v0': looked"
    ):
        open_source("no/such-v0")


def test_what_was_tried_is_said(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    tried = (
        r"notes.txt has no layout that is known. Minari: no metadata.json with main_data.hdf5; D4RL HDF5: not HDF5; "
        r"Decision Transformer pickle: not a pickle; RATE pickle: not a pickle; "
        r"Atari DQN replay: no \$store\$_action_ckpt.N.gz; npz episodes: not an archive$"
    )
    with pytest.raises(ValueError, match=tried):
        open_source("notes.txt")
    (tmp_path / "POPGym" / "popgym-RepeatFirstEasy-v0").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"It holds the folders popgym-RepeatFirstEasy-v0: is it one of them\?$"
    ):
        open_source("POPGym")
    layouts.write_pickle(tmp_path / "number.pkl", 3)
    with pytest.raises(
        ValueError, match=r"Decision Transformer pickle: a pickle, but not of a list; RATE pickle: a pickle"
    ):
        open_source("number.pkl")


def test_options_reach_the_layout(tmp_path):
    _all(tmp_path)
    known = SpaceSpec("discrete", (), n=9)
    assert open_source("popgym", action_space=known).action_space == known
    assert open_source("Pong", stack=2).observation_space.shape == (2, 6, 6)
    assert open_source("hopper.hdf5", limit=7).lengths.tolist() == [3]
    for place in PLACES:
        with pytest.raises(ValueError, match="limit must be at least 1 step, got 0"):
            open_source(place, limit=0)
        with pytest.raises(ValueError, match="cache_bytes must not be negative, got -1"):
            open_source(place, cache_bytes=-1)


def test_given_spaces_must_fit(tmp_path):
    _all(tmp_path)
    with pytest.raises(ValueError, match=r"popgym holds actions 0 to 2, expected 0 to 1"):
        open_source("popgym", action_space=SpaceSpec("discrete", (), n=2))
    with pytest.raises(ValueError, match=r"popgym holds discrete actions \[\], expected continuous \[2\]"):
        open_source("popgym", action_space=SpaceSpec("continuous", (2,)))
    with pytest.raises(
        ValueError, match=r"hopper.hdf5 holds vector observations \[3\], expected vector \[4\]"
    ):
        open_source("hopper.hdf5", observation_space=SpaceSpec("vector", (4,)))
    wider = SpaceSpec("continuous", (2,), low=-2.0, high=2.0)
    assert open_source("hopper.hdf5", action_space=wider).action_space == wider
    with pytest.raises(
        ValueError, match=r"limit must be at least 3, the first episode's steps in .*hopper.hdf5, got 2"
    ):
        open_source("hopper.hdf5", limit=2)
