"""DQN replay chunks: frames stacked lazily, Dopamine's padding left out, damage named, nothing left behind."""

from __future__ import annotations

import gc
import gzip
import math
import os
import pickle
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rate.data import SegmentWindows, SpaceSpec
from rate.data.sources import DqnReplayEpisodes, dqn_replay
from tests.rate.data.sources.layouts import assert_equal, frames, write_chunk


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    """Temporary files of a test in its own folder."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))


def _episodes(chunk, rows=None):
    """A chunk's episodes within its first rows: single frames, actions and rewards, without padding."""
    ends = [end for end in np.flatnonzero(chunk["terminal"]) + 1 if rows is None or end <= rows]
    for start, end in zip([0, *ends][: len(ends)], ends, strict=True):
        real = chunk["observation"][start:end].any((1, 2))
        yield tuple(chunk[key][start:end][real] for key in ("observation", "action", "reward"))


def _stacked(single, stack):
    """The stacks one by one, as the definition says."""
    padded = np.concatenate([np.zeros((stack - 1, *single.shape[1:]), np.uint8), single])
    return np.stack([padded[step : step + stack] for step in range(len(single))])


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("stack", [1, 4])
def test_what_is_written_is_read(tmp_path, padding, stack, monkeypatch):
    monkeypatch.setattr(dqn_replay, "_BLOCK", 7)
    chunks = [frames([5, 9, 2], seed, padding, tail=6) for seed in (0, 1)]
    for number, chunk in zip((0, 12), chunks, strict=True):
        write_chunk(tmp_path / "Pong" / "1" / "replay_logs", number, **chunk)
    source = DqnReplayEpisodes(tmp_path / "Pong", stack=stack)
    expected = [episode for chunk in chunks for episode in _episodes(chunk)]
    assert source.lengths.tolist() == [len(actions) for _, actions, _ in expected] == [5, 9, 2, 5, 9, 2]
    assert source.observation_space == SpaceSpec("image", (stack, 6, 6), low=0.0, high=255.0)
    assert source.action_space == SpaceSpec("discrete", (), n=4)
    for index, (single, actions, rewards) in enumerate(expected):
        stacks = _stacked(single, stack)
        assert_equal(source[index], stacks, actions, rewards)
        assert source[index].observations.dtype == np.uint8
        np.testing.assert_array_equal(source.recording(index).observations, [*stacks, stacks[-1]])
        np.testing.assert_array_equal(source.actions_and_rewards(index)[0], actions)


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    padding=st.integers(0, 3),
    tail=st.integers(0, 4),
    share=st.integers(1, 50),
)
def test_the_first_rows_of_each_chunk(tmp_path_factory, lengths, padding, tail, share):
    folder = tmp_path_factory.mktemp("logs")
    chunks = [frames(lengths, seed, padding, tail) for seed in (0, 1)]
    for number, chunk in enumerate(chunks):
        write_chunk(folder, number, **chunk)
    expected = [len(actions) for chunk in chunks for _, actions, _ in _episodes(chunk, share)]
    if not expected:
        with pytest.raises(
            ValueError, match=f"ends no episode within the first {share} rows of its 2 chunks"
        ):
            DqnReplayEpisodes(folder, limit=2 * share)
    else:
        assert DqnReplayEpisodes(folder, limit=2 * share).lengths.tolist() == expected


def test_rows_left_from_the_chunk_before_are_dropped(tmp_path):
    chunk = frames([5, 4, 3], padding=0)
    write_chunk(tmp_path, 3, **chunk, add_count=4 * 12 - 3)  # written up to its ninth row
    assert DqnReplayEpisodes(tmp_path).lengths.tolist() == [5, 4]


def test_black_frames_within_an_episode_are_steps(tmp_path):
    chunk = frames([8], padding=3)
    chunk["observation"][5:7] = chunk["action"][5:7] = chunk["reward"][5:7] = 0
    write_chunk(tmp_path, 0, **chunk)
    source = DqnReplayEpisodes(tmp_path)
    assert_equal(source[0], _stacked(chunk["observation"][3:], 4), chunk["action"][3:], chunk["reward"][3:])


def test_stacks_are_views_of_a_mapped_file(tmp_path):
    write_chunk(tmp_path, 0, **frames([50, 40]))
    source = DqnReplayEpisodes(tmp_path, cache_bytes=90 * 16)
    episode = source[1]
    assert episode.observations.strides[:2] == (36, 36)  # a frame further per step and per stacked frame
    owner = episode.observations
    while owner.base is not None and not isinstance(owner, np.memmap):
        owner = owner.base
    assert isinstance(owner, np.memmap)
    assert source[1] is episode and source.cached_bytes == 40 * 16


def test_the_temporary_file_goes_with_the_source(tmp_path):
    write_chunk(tmp_path / "logs", 0, **frames([5, 4]))
    source = DqnReplayEpisodes(tmp_path / "logs")
    episode, batch = source[0], SegmentWindows(source, 3, 2).batch([0, 1])
    assert len(os.listdir(tmp_path / "scratch")) == 1
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[1].observations, source[1].observations)
    del copy
    gc.collect()
    assert len(os.listdir(tmp_path / "scratch")) == 1  # the copy does not own it
    del source
    gc.collect()
    assert not os.listdir(tmp_path / "scratch")
    np.testing.assert_array_equal(batch.observations[0, :5], episode.observations)


def test_nothing_stays_of_a_set_that_cannot_be_read(tmp_path):
    write_chunk(tmp_path / "logs", 0, **frames([500]))
    path = tmp_path / "logs" / "$store$_observation_ckpt.0.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"observation_ckpt.0.gz cannot be read, it is damaged or cut short"):
        DqnReplayEpisodes(tmp_path / "logs")
    gc.collect()
    assert not os.listdir(tmp_path / "scratch")


def test_a_disk_without_room_is_named(tmp_path, monkeypatch):
    write_chunk(tmp_path / "logs", 0, **frames([5]))
    monkeypatch.setattr(dqn_replay.shutil, "disk_usage", lambda _: _Usage(10))
    with pytest.raises(
        OSError, match=r"frames need 0.0 GB in .*scratch, which has 0.0 GB free: lower the limit"
    ):
        DqnReplayEpisodes(tmp_path / "logs")


class _Usage:
    def __init__(self, free):
        self.free = free


def _rewrite(folder, key, array):
    with gzip.open(folder / f"$store$_{key}_ckpt.0.gz", "wb") as file:
        np.save(file, array)


BAD = {
    "actions": ("action", np.zeros((3, 2), int), r"action_ckpt.0.gz is \[3, 2\] int64, expected \[rows\] integers"),
    "rewards": ("reward", np.array(["no"] * 15), r"reward_ckpt.0.gz is \[15\] <U2, expected \[rows\] numbers"),
    "lengths": ("reward", np.zeros(9), r"chunk 0: reward holds 9 rows, expected 15 as terminal does"),
    "terminals": ("terminal", np.full(15, 2, np.uint8), r"terminal_ckpt.0.gz: terminal must be \[N\] of 0 and 1"),
    "floats": ("observation", np.zeros((15, 6, 6)), r"_ckpt.0.gz is \[15, 6, 6\] float64, expected \[rows, height"),
    "few frames": ("observation", np.zeros((9, 6, 6), np.uint8), r"0.gz holds 9 rows, expected 15 as action does"),
    "objects": ("action", np.array([None] * 15), r"action_ckpt.0.gz holds Python objects, expected numbers"),
    "columns": ("observation", np.zeros((6, 6, 15), np.uint8).T, r"observation_ckpt.0.gz is stored by columns"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_chunks_are_named(tmp_path, case):
    key, array, message = BAD[case]
    write_chunk(tmp_path / "logs", 0, **frames([5, 4]))
    _rewrite(tmp_path / "logs", key, array)
    with pytest.raises(ValueError, match=message) as raised:
        DqnReplayEpisodes(tmp_path / "logs")
    assert str(tmp_path / "logs") in str(raised.value)


def test_damaged_and_missing_files_are_named(tmp_path):
    write_chunk(tmp_path, 0, **frames([5, 4]))
    path = tmp_path / "$store$_reward_ckpt.0.gz"
    whole = path.read_bytes()
    for damaged in (whole[:20], b"not compressed", whole[:10] + bytes(30)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"reward_ckpt.0.gz cannot be read, it is damaged or cut short"):
            DqnReplayEpisodes(tmp_path)
    path.write_bytes(gzip.compress(b"words"))
    with pytest.raises(ValueError, match=r"reward_ckpt.0.gz"):
        DqnReplayEpisodes(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"reward_ckpt.0.gz"):
        DqnReplayEpisodes(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"no chunks .* in .*none, .*none/replay_logs, .*none/1/replay_logs"
    ):
        DqnReplayEpisodes(tmp_path / "none")
    with pytest.raises(ValueError, match="stack must be at least 1, got 0"):
        DqnReplayEpisodes(tmp_path, stack=0)


def test_the_default_limit_is_shared_by_all_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(dqn_replay, "DEFAULT_LIMIT", 30)
    for number in range(4):
        write_chunk(tmp_path, number, **frames([5, 5], number, padding=0))
    assert math.ceil(30 / 4) == 8
    assert DqnReplayEpisodes(tmp_path).lengths.tolist() == [5] * 4
    assert DqnReplayEpisodes(tmp_path, limit=40).lengths.tolist() == [5] * 8
