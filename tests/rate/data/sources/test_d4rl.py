"""D4RL files: every array comes back, episodes end where they should, damage is named."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rate.data import SpaceSpec
from rate.data.sources import D4RLEpisodes, d4rl
from tests.rate.data.sources.layouts import assert_equal, walks, write_d4rl

LENGTHS = [4, 7, 1, 2, 12]


@pytest.mark.parametrize("timeouts", [True, False])
def test_what_is_written_is_read(tmp_path, timeouts, monkeypatch):
    monkeypatch.setattr(d4rl, "MAX_EPISODE_STEPS", 9)
    lengths = LENGTHS if timeouts else [4, 9, 2, 9, 8]  # without timeouts an odd one ends by its length alone
    episodes = walks(lengths)
    source = D4RLEpisodes(write_d4rl(tmp_path / "walks.hdf5", episodes, timeouts))
    assert source.lengths.tolist() == lengths and source.dropped_steps == 0
    assert source.observation_space == SpaceSpec("vector", (3,))
    assert source.action_space == SpaceSpec("continuous", (2,), low=-1.0, high=1.0)
    for index, episode in enumerate(episodes):
        assert_equal(source[index], episode["observations"], episode["actions"], episode["rewards"])
        actions, rewards = source.actions_and_rewards(index)
        np.testing.assert_array_equal(actions, episode["actions"])
        np.testing.assert_array_equal(rewards, episode["rewards"])
        recording = source.recording(index)
        np.testing.assert_array_equal(recording.observations[1:], episode["next_observations"])
        assert (recording.terminated, recording.truncated) == (
            lengths[index] % 2 == 0,
            lengths[index] % 2 == 1,
        )


def test_without_next_observations_the_last_is_repeated(tmp_path):
    episodes = walks(LENGTHS)
    source = D4RLEpisodes(write_d4rl(tmp_path / "walks.hdf5", episodes, next_observations=None))
    recording = source.recording(1)
    np.testing.assert_array_equal(recording.observations[:-1], episodes[1]["observations"])
    np.testing.assert_array_equal(recording.observations[-1], episodes[1]["observations"][-1])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 6))
def test_without_timeouts_episodes_end_after_so_many_steps(terminals, most):
    expected, length = [], 0
    for row, terminal in enumerate(terminals):
        length += 1
        if terminal or length == most:
            expected.append(row + 1)
            length = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(d4rl, "MAX_EPISODE_STEPS", most)
        assert d4rl.episode_ends(np.array(terminals), None).tolist() == expected


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_with_timeouts_only_flags_end_episodes(ends):
    terminals, timeouts = np.array(ends).T
    expected = [row + 1 for row, flags in enumerate(ends) if any(flags)]
    assert d4rl.episode_ends(terminals, timeouts).tolist() == expected


def test_an_unfinished_tail_is_dropped(tmp_path):
    episodes = walks([4, 6, 5])
    timeouts = np.zeros(15, bool)
    source = D4RLEpisodes(write_d4rl(tmp_path / "walks.hdf5", episodes, timeouts=timeouts))
    assert source.lengths.tolist() == [4, 6] and source.dropped_steps == 5


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_flags_may_be_numbers(tmp_path, dtype):
    episodes = walks([2, 4])
    flags = np.concatenate([episode["terminals"] for episode in episodes]).astype(dtype)
    source = D4RLEpisodes(write_d4rl(tmp_path / "walks.hdf5", episodes, terminals=flags[:, None]))
    assert source.lengths.tolist() == [2, 4]


def test_discrete_actions_and_other_bounds(tmp_path):
    episodes = walks([3, 5])
    numbers = np.array([0, 1, 2, 4, 0, 0, 3, 1])
    source = D4RLEpisodes(write_d4rl(tmp_path / "a.hdf5", episodes, actions=numbers[:, None]))
    assert source.action_space == SpaceSpec("discrete", (), n=5)
    np.testing.assert_array_equal(source[1].actions, numbers[3:])
    turns = np.linspace(-2, 1.5, 8, dtype=np.float32)[:, None]
    source = D4RLEpisodes(write_d4rl(tmp_path / "b.hdf5", episodes, actions=turns))
    assert source.action_space == SpaceSpec("continuous", (1,), low=-2.0, high=1.5)


BAD = {
    "a key is missing": ({"rewards": None}, r"lacks rewards: it holds actions, infos, next_observations, observations"),
    "lengths differ": ({"actions": np.zeros((4, 2))}, r"hdf5: actions holds 4 rows, expected 15 as terminals does"),
    "flags": ({"terminals": np.full(15, 2)}, r"walks.hdf5: terminals must be \[N\] of 0 and 1, got \[15\] int64"),
    "no end": ({"terminals": np.zeros(15), "timeouts": np.zeros(15)}, r"end no episode within 15 steps"),
    "words": ({"actions": np.array([b"up"] * 15)}, r"actions are \[15\] \|S2, expected \[N, size\] numbers"),
    "shape": ({"observations": np.zeros((15, 2, 2))}, r"observations are \[15, 2, 2\] float64, expected \[N, size\]"),
    "one value": ({"rewards": np.float32(3)}, r"rewards must be an array of steps"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named(tmp_path, case):
    changes, message = BAD[case]
    path = write_d4rl(tmp_path / "walks.hdf5", walks([4, 6, 5]), **changes)
    with pytest.raises((ValueError, TypeError), match=message) as raised:
        D4RLEpisodes(path)
    assert str(path) in str(raised.value)


def test_a_bad_number_is_named_when_it_is_read(tmp_path):
    path = write_d4rl(tmp_path / "walks.hdf5", walks([4, 6, 5]))
    with h5py.File(path, "r+") as file:
        file["observations"][6, 1] = np.nan
        file["actions"][11, 0] = np.inf
    source = D4RLEpisodes(path)
    assert source[0].length == 4
    with pytest.raises(ValueError, match=r"walks.hdf5: episode 1: observations contain NaN at step 2$"):
        source[1]
    with pytest.raises(ValueError, match=r"walks.hdf5: episode 2: actions contain infinity at step 1$"):
        source[2]


def test_a_truncated_file_is_named(tmp_path):
    path = write_d4rl(tmp_path / "walks.hdf5", walks([400, 600], observation=30))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"walks.hdf5 cannot be read, it is damaged or cut short: .*truncated"
    ):
        D4RLEpisodes(path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2 :] = bytes(len(whole) - len(whole) // 2)
    path.write_bytes(damaged)
    with pytest.raises(
        ValueError, match=r"walks.hdf5 cannot be read"
    ):  # when opened, or when that part is read
        source = D4RLEpisodes(path)
        [source[index] for index in range(len(source))]


def test_a_missing_file_stays_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.hdf5"):
        D4RLEpisodes(tmp_path / "none.hdf5")


def _in_chunks(path, episodes, rows):
    write_d4rl(path, episodes)
    with h5py.File(path, "r+") as file:
        for key in ("observations", "actions", "rewards"):
            values = file[key][()]
            del file[key]
            file.create_dataset(key, data=values, chunks=(rows, *[1] * (values.ndim - 1)), compression="gzip")
    return path


def test_a_pass_decompresses_each_chunk_once(tmp_path, monkeypatch):
    episodes = walks([6] * 20)
    source = D4RLEpisodes(_in_chunks(tmp_path / "walks.hdf5", episodes, 30))
    reads = []
    slices = D4RLEpisodes._slices
    monkeypatch.setattr(
        D4RLEpisodes, "_slices", lambda self, *part: reads.append(part[:2]) or slices(self, *part)
    )
    for index, episode in enumerate(episodes):
        assert_equal(source[index], episode["observations"], episode["actions"], episode["rewards"])
    assert reads == [(0, 5), (5, 10), (10, 15), (15, 20)]
    assert source[7].observations.base is None  # not a view, which would keep what was read with it


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    rows=st.integers(1, 40),
    cache=st.integers(0, 2000),
    limit=st.none() | st.integers(9, 40),
    data=st.data(),
)
def test_any_order_and_any_cache_give_the_episodes(tmp_path_factory, lengths, rows, cache, limit, data):
    episodes = walks(lengths)
    path = _in_chunks(tmp_path_factory.mktemp("set") / "walks.hdf5", episodes, min(rows, sum(lengths)))
    source = D4RLEpisodes(path, cache_bytes=cache, limit=limit)
    for index in data.draw(st.lists(st.integers(0, len(source) - 1), max_size=20)):
        episode = episodes[index]
        assert_equal(source[index], episode["observations"], episode["actions"], episode["rewards"])
        held = sum(episode.nbytes + episode.rewards.nbytes for episode in source._cache.values())
        assert source.cached_bytes == held <= cache


def test_a_bad_neighbour_is_named_when_it_is_asked_for(tmp_path):
    episodes = walks([6] * 10)
    episodes[2]["observations"][3] = np.nan
    source = D4RLEpisodes(_in_chunks(tmp_path / "walks.hdf5", episodes, 60))
    assert source[1].length == source[3].length == 6
    for _ in range(2):
        with pytest.raises(ValueError, match=r"walks.hdf5: episode 2: observations contain NaN at step 3$"):
            source[2]
