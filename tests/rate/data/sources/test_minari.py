"""Minari data sets written, opened by Minari itself, and read back."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from rate.data import MinariEpisodes, SegmentWindows, collect_tmaze, write_minari
from tests.rate.data.helpers import random_recordings

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
ACTIONS = spaces.Discrete(4)
LENGTHS = [3, 1, 12, 4, 5, 2, 7, 8, 9, 10, 11, 6]  # more than ten: groups are not in alphabetical order


# Minari warns about every field of the metadata that is left out.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))


def _write(output, observation_space=VECTOR, action_space=ACTIONS, lengths=LENGTHS, **options):
    recordings = random_recordings(observation_space, action_space, lengths)
    spaces_ = {"observation_space": observation_space, "action_space": action_space}
    return write_minari(output, recordings, **spaces_, **options), recordings


@pytest.mark.parametrize(
    ("observation_space", "action_space"),
    [
        (VECTOR, ACTIONS),
        (spaces.Box(-np.inf, np.inf, (5,), np.float64), spaces.Box(-2, 2, (2,), np.float32)),
        (spaces.Box(0, 255, (40, 36, 3), np.uint8), ACTIONS),
        (spaces.Box(0, 255, (4, 40, 36), np.uint8), spaces.Box(-1, 1, (1,), np.float32)),
        (spaces.Discrete(9, start=2), spaces.Discrete(3, start=-1)),
    ],
)
def test_what_is_written_is_read(observation_space, action_space):
    folder, recordings = _write("demo/random-v0", observation_space, action_space)
    theirs = minari.load_dataset("demo/random-v0")
    source = MinariEpisodes("demo/random-v0")
    assert (theirs.observation_space, theirs.action_space) == (observation_space, action_space)
    assert len(source) == theirs.total_episodes == len(LENGTHS)
    assert source.lengths.tolist() == LENGTHS
    last = source.observation_space.channels_last
    for index, recording in enumerate(recordings):
        stored, episode = theirs[index], source[index]
        np.testing.assert_array_equal(stored.observations, recording.observations)
        np.testing.assert_array_equal(stored.terminations[-1], recording.terminated)
        np.testing.assert_array_equal(stored.truncations[-1], recording.truncated)
        seen = np.moveaxis(episode.observations, 1, -1) if last else episode.observations
        np.testing.assert_array_equal(
            seen, recording.observations[:-1].astype(source.observation_space.dtype)
        )
        np.testing.assert_array_equal(episode.actions, recording.actions)
        np.testing.assert_array_equal(episode.rewards, recording.rewards.astype(np.float32))
        assert episode.observations.dtype == source.observation_space.dtype
        assert episode.actions.dtype == source.action_space.dtype
    assert folder.name == "random-v0"
    assert list(minari.list_local_datasets()) == ["demo/random-v0"]


def test_sets_stored_as_jpeg_are_decoded():
    across = np.linspace(0, 255, 64, dtype=np.uint8)
    image = np.stack([np.tile(across, (48, 1)), np.tile(across[:48, None], 64), np.full((48, 64), 90)], -1)
    images = np.stack([image.astype(np.uint8)] * 4)
    minari.create_dataset_from_buffers(
        "demo/jpeg-v0",
        buffer=[
            EpisodeBuffer(
                observations=images,
                actions=np.zeros(3, np.int64),
                rewards=np.ones(3),
                terminations=np.array([False, False, True]),
                truncations=np.zeros(3, bool),
            )
        ],
        observation_space=spaces.Box(0, 255, (48, 64, 3), np.uint8),
        action_space=ACTIONS,
        jpeg_encoding=True,
    )
    episode = MinariEpisodes("demo/jpeg-v0")[0]
    assert episode.observations.shape == (3, 3, 48, 64)
    error = np.abs(np.moveaxis(episode.observations, 1, -1).astype(int) - images[:3])
    assert 0 < error.mean() < 3


def test_a_set_is_found_by_folder_data_folder_and_id(tmp_path, monkeypatch):
    folder, _ = _write("demo/random-v0")
    monkeypatch.chdir(folder.parent)
    for place in ("demo/random-v0", folder, folder / "data", str(folder), "random-v0"):
        assert MinariEpisodes(place).path.resolve() == (folder / "data").resolve()


def test_a_set_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no Minari data set 'demo/none-v0': looked for .*root"
    ) as raised:
        MinariEpisodes("demo/none-v0")
    assert "\n" not in str(raised.value)
    with pytest.raises(FileNotFoundError, match="looked for"):
        MinariEpisodes(tmp_path / "none")
    folder, _ = _write("demo/random-v0")
    (folder / "data" / "main_data.hdf5").unlink()
    with pytest.raises(FileNotFoundError, match=r"main_data.hdf5"):
        MinariEpisodes("demo/random-v0")


def test_an_empty_set_is_named():
    minari.create_dataset_from_buffers(
        "demo/empty-v0", buffer=[], observation_space=VECTOR, action_space=ACTIONS
    )
    with pytest.raises(ValueError, match=r"data set .*empty-v0.* must hold at least one episode, got 0"):
        MinariEpisodes("demo/empty-v0")


def test_a_bad_episode_is_named_when_it_is_read():
    folder, _ = _write("demo/random-v0")
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        file["episode_2/observations"][7, 1] = np.nan
        file["episode_3/actions"][0] = 9
        file["episode_4"].attrs["total_steps"] = 4
    source = MinariEpisodes("demo/random-v0")
    assert source[1].length == 1
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"random-v0/data: episode 2: observations contain NaN at step 7$"
        ):
            source[2]
    with pytest.raises(ValueError, match=r"data: episode 3: actions contain 9 at step 0, expected 0 to 3$"):
        source[3]
    with pytest.raises(ValueError, match=r"data: episode 4: has 5 steps, expected 4 as the set says$"):
        source[4]


@pytest.mark.parametrize("index", [12, -13])
def test_an_episode_out_of_range_is_named(index):
    _write("demo/random-v0")
    with pytest.raises(IndexError, match=f"index must be 0 to 11, got {index}"):
        MinariEpisodes("demo/random-v0")[index]


def test_a_negative_cache_is_named():
    with pytest.raises(ValueError, match="cache_bytes must not be negative, got -1"):
        MinariEpisodes("demo/random-v0", cache_bytes=-1)


def test_reading_is_lazy_and_the_cache_is_bounded(monkeypatch):
    _, recordings = _write("demo/random-v0", lengths=[10] * 12)
    read: list[int] = []
    decode = MinariEpisodes._decode
    monkeypatch.setattr(MinariEpisodes, "_decode", lambda self, i: read.append(i) or decode(self, i))
    one = 10 * (3 * 4 + 8 + 4 + 4)
    source = MinariEpisodes("demo/random-v0", cache_bytes=3 * one + 10)
    windows = SegmentWindows(source, 5, 2)
    assert read == []
    for index in (0, 1, 2, 0, 1, 2):
        np.testing.assert_array_equal(source[index].observations, recordings[index].observations[:-1])
    assert read == [0, 1, 2]
    source[0], source[3]  # 1 is now the one used longest ago
    source[0], source[2], source[1]
    assert read == [0, 1, 2, 3, 1]
    for update in range(9):
        windows.sample(update, 4, 0)
        assert source.cached_bytes <= 3 * one + 10
    assert source.cached_bytes == 3 * one
    assert set(read) == set(range(12))


def test_without_a_cache_nothing_is_kept():
    _write("demo/random-v0")
    source = MinariEpisodes("demo/random-v0", cache_bytes=0)
    assert source[0] is not source[0]
    assert source.cached_bytes == 0


def test_a_source_can_be_sent_to_another_process():
    _write("demo/random-v0")
    source = MinariEpisodes("demo/random-v0")
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[2].observations, source[2].observations)


def test_what_is_there_is_replaced_only_when_asked(tmp_path):
    folder, _ = _write(tmp_path / "sets" / "mine")
    with pytest.raises(FileExistsError, match="mine is there already"):
        _write(folder, lengths=[2])
    assert len(MinariEpisodes(folder)) == 12
    _write(folder, lengths=[2], overwrite=True)
    assert len(MinariEpisodes(folder)) == 1
    assert os.listdir(folder.parent) == ["mine"]


def test_other_folders_are_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("mine")
    with pytest.raises(FileExistsError, match="thesis is there and is not a Minari data set"):
        _write(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter").read_text() == "mine"


def test_a_set_that_fails_while_it_is_written_leaves_no_trace(tmp_path):
    folder, recordings = _write(tmp_path / "sets" / "mine")
    recordings[3].actions[1] = 7
    spaces_ = {"observation_space": VECTOR, "action_space": ACTIONS}
    with pytest.raises(ValueError, match=r"^episode 3: actions contain 7 at step 1"):
        write_minari(folder, recordings, **spaces_, overwrite=True)
    with pytest.raises(ValueError, match="must hold at least one episode, got 0"):
        write_minari(folder.parent / "other", [], **spaces_)
    assert os.listdir(folder.parent) == ["mine"]
    assert len(MinariEpisodes(folder)) == 12
    assert os.environ["MINARI_DATASETS_PATH"] == str(tmp_path / "root")


def test_recordings_need_their_last_observation(tmp_path):
    recordings = random_recordings(VECTOR, ACTIONS, [4])
    recordings = [type(recordings[0])(recordings[0].observations[:-1], recordings[0].actions, np.ones(4))]
    with pytest.raises(ValueError, match=r"^episode 0: observations hold 4 steps, expected 5"):
        write_minari(tmp_path / "mine", recordings, observation_space=VECTOR, action_space=ACTIONS)


@pytest.mark.parametrize(("name", "dataset_id"), [("my set", "my-set-v0"), ("walks-v3", "walks-v3")])
def test_folders_get_an_id(tmp_path, name, dataset_id):
    folder, _ = _write(tmp_path / name)
    assert folder == tmp_path / name
    assert MinariEpisodes(folder).dataset.id == dataset_id


def test_a_process_that_imported_only_this_package_can_make_the_environment():
    collect_tmaze("tmaze/expert-v0", 4, 5)
    code = """
import sys
import rate.data
print(sorted({"gymnasium", "minari", "h5py", "rate.envs"} & set(sys.modules)))
print(rate.data.MinariEpisodes("tmaze/expert-v0").recover_environment().unwrapped)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded_early, environment = done.stdout.splitlines()
    assert loaded_early == "[]"
    assert "TMaze" in environment
