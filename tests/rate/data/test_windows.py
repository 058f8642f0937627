"""Windows cover the data, batches hold it unchanged, sampling is a pure function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rate.data import Episode, InMemoryEpisodes, SegmentWindows, SpaceSpec
from tests.rate.data.helpers import DISCRETE, counting_source

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, segment=st.integers(1, 6), number=st.integers(1, 4), data=st.data())
def test_windows_cover_every_step(lengths, segment, number, data):
    window = segment * number
    stride = data.draw(st.none() | st.integers(1, window))
    windows = SegmentWindows(counting_source(lengths), segment, number, stride)
    covered = [np.zeros(length, bool) for length in lengths]
    starts: dict[int, list[int]] = {}
    for index in range(len(windows)):
        episode, start, length = windows.location(index)
        assert length == min(window, lengths[episode])
        covered[episode][start : start + length] = True
        starts.setdefault(episode, []).append(start)
    assert all(steps.all() for steps in covered)
    for episode, length in enumerate(lengths):
        last = max(length - window, 0)
        assert starts[episode] == sorted({*range(0, last + 1, stride or window), last})


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, segment=st.integers(1, 6), number=st.integers(1, 4), data=st.data())
def test_a_batch_holds_the_episodes(lengths, segment, number, data):
    source = counting_source(lengths)
    windows = SegmentWindows(source, segment, number)
    chosen = data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=5))
    batch = windows.batch(chosen)
    longest = max(windows.location(index)[2] for index in chosen)
    assert batch.num_segments(segment) == -(-longest // segment)
    steps = batch.mask.shape[1]
    for row, index in enumerate(chosen):
        number_, start, length = windows.location(index)
        episode, part = source[number_], slice(start, start + length)
        assert batch.mask[row].tolist() == [True] * length + [False] * (steps - length)
        for tensor, values in (
            (batch.observations, episode.observations[part]),
            (batch.actions, episode.actions[part]),
            (batch.returns_to_go[..., 0], episode.rewards[::-1].cumsum()[::-1][part]),
            (batch.timesteps, np.arange(start, start + length)),
        ):
            np.testing.assert_array_equal(tensor[row, :length].numpy(), values)
            assert not tensor[row, length:].any()


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 30),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 1000),
    order=st.lists(st.integers(0, 20), max_size=6),
)
def test_an_epoch_has_each_window_once_and_sampling_is_pure(count, batch_size, seed, order):
    source = counting_source([3] * count)
    windows = SegmentWindows(source, 3, 1)
    updates = -(-3 * count // batch_size)
    drawn = np.concatenate([windows.sample_indices(u, batch_size, seed) for u in range(updates)])
    for epoch in range(3):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))
    other = SegmentWindows(source, 3, 1)
    for update in order:  # in any order, on another object, after other seeds
        other.sample_indices(update, batch_size, seed + 1)
        again = other.sample_indices(update, batch_size, seed)
        np.testing.assert_array_equal(again, windows.sample_indices(update, batch_size, seed))


def test_epochs_and_seeds_are_shuffled_differently():
    windows = SegmentWindows(counting_source([2] * 50), 2, 1)
    orders = [tuple(windows.sample_indices(update, 50, seed)) for seed in (0, 1) for update in (0, 1)]
    assert len({*orders, tuple(range(50))}) == 5


def test_sample_is_the_batch_of_its_indices():
    windows = SegmentWindows(counting_source([2, 9, 5]), 2, 2)
    sampled = windows.sample(3, 4, 7)
    expected = windows.batch(windows.sample_indices(3, 4, 7))
    torch.testing.assert_close(sampled.observations, expected.observations, rtol=0, atol=0)


def test_sampling_far_ahead_makes_only_the_epochs_it_touches(monkeypatch):
    windows = SegmentWindows(counting_source([2] * 10), 2, 1)
    made = []
    original = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda key: made.append(key) or original(key))
    windows.sample_indices(1_000_000, 4, 5)
    windows.sample_indices(1_000_001, 4, 5)
    assert made == [(5, 400_000)]


def test_shapes_and_dtypes():
    length = 5
    images = np.full((length, 3, 4, 6), 200, np.uint8)
    actions = np.ones((length, 2), np.float32)
    episode = Episode(images, actions, np.ones(length, np.float32))
    spaces = SpaceSpec("image", (3, 4, 6), channels_last=True), SpaceSpec("continuous", (2,))
    batch = SegmentWindows(InMemoryEpisodes([episode], *spaces), 3, 4).batch([0, 0])
    found = {name: (list(value.shape), value.dtype) for name, value in vars(batch).items()}
    assert found == {
        "observations": ([2, 6, 3, 4, 6], torch.uint8),
        "actions": ([2, 6, 2], torch.float32),
        "returns_to_go": ([2, 6, 1], torch.float32),
        "mask": ([2, 6], torch.bool),
        "timesteps": ([2, 6], torch.int64),
    }


def test_discrete_values_count_from_zero():
    space = SpaceSpec("discrete", (), n=3, start=5)
    episode = Episode(np.array([5, 6, 7]), np.array([7, 5, 6]), np.ones(3, np.float32))
    batch = SegmentWindows(InMemoryEpisodes([episode], space, space), 2, 2).batch([0])
    assert batch.observations.tolist() == [[0, 1, 2, 0]]
    assert batch.actions.tolist() == [[2, 0, 1, 0]]
    assert batch.actions.dtype == batch.observations.dtype == torch.int64


def test_segments_are_views():
    batch = SegmentWindows(counting_source([7]), 3, 3).batch([0])
    segments = list(batch.segments(3))
    assert len(segments) == batch.num_segments(3) == 3
    assert torch.equal(torch.cat([part.timesteps for part in segments], 1), batch.timesteps)
    segments[1].observations.zero_()
    assert not batch.observations[:, 3:6].any()
    assert batch.observations[:, :3].any()


def test_a_batch_moves_to_a_device():
    batch = SegmentWindows(counting_source([7]), 3, 3).batch([0]).to("meta")
    assert {value.device.type for value in vars(batch).values()} == {"meta"}


@pytest.mark.parametrize(
    ("lengths", "arguments", "message"),
    [
        ([], (2, 2), "source must hold at least one episode, got 0"),
        ([3], (0, 2), "segment_length must be at least 1, got 0"),
        ([3], (2, 0), "num_segments must be at least 1, got 0"),
        ([3], (2, 2, 5), "stride must be 1 to 4 .*, got 5"),
        ([3], (2, 2, 0), "stride must be 1 to 4 .*, got 0"),
    ],
)
def test_bad_windows_are_named(lengths, arguments, message):
    with pytest.raises(ValueError, match=message):
        SegmentWindows(counting_source(lengths), *arguments)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda w: w.batch([]), ValueError, "indices must name at least one window"),
        (lambda w: w.batch([1]), IndexError, "indices must be 0 to 0, got 1 to 1"),
        (lambda w: w.batch([-1]), IndexError, "indices must be 0 to 0, got -1 to -1"),
        (lambda w: w.sample(0, 0, 0), ValueError, "batch_size must be at least 1, got 0"),
        (lambda w: w.sample(-1, 1, 0), ValueError, "must not be negative, got -1 and 0"),
        (lambda w: w.sample(0, 1, -2), ValueError, "must not be negative, got 0 and -2"),
        (lambda w: w.batch([0]).num_segments(3), ValueError, "must divide the batch's 4 steps, got 3"),
        (lambda w: w.batch([0]).num_segments(0), ValueError, "must divide the batch's 4 steps, got 0"),
    ],
)
def test_bad_calls_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(SegmentWindows(counting_source([3]), 2, 2))


def test_discrete_actions_have_no_trailing_dimension():
    assert SegmentWindows(counting_source([3]), 2, 2).batch([0]).actions.shape == (1, 4)
    assert counting_source([3]).action_space == DISCRETE
