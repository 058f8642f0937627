"""Numbers, text and pictures of a data set, against the arrays that were written."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from rate.data import Episode, SpaceSpec, observation_statistics, open_source
from rate.data.picture import draw_strip
from rate.data.report import bar, describe, describe_episode
from rate.data.statistics import Moments
from rate.data.summary import BINS, summarise
from tests.rate.data.helpers import counting_source
from tests.rate.data.sources import layouts

LENGTHS = [4, 7, 1, 12, 5]


def _images(rng, length):
    return rng.integers(0, 256, (length, 3, 10, 12)).astype(np.uint8)


def test_continuous_actions_and_vectors(tmp_path):
    episodes = layouts.walks(LENGTHS)
    summary = summarise(open_source(layouts.write_d4rl(tmp_path / "walks.hdf5", episodes)))
    together = {key: np.concatenate([episode[key] for episode in episodes]) for key in layouts.D4RL_KEYS}
    assert summary.lengths.tolist() == LENGTHS
    np.testing.assert_allclose(summary.returns, [e["rewards"].sum(dtype=float) for e in episodes], rtol=1e-12)
    for moments, key in ((summary.action_moments, "actions"), (summary.observation_moments, "observations")):
        values = together[key].astype(np.float64)
        np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(moments.deviation, values.std(0), rtol=1e-12)
        np.testing.assert_array_equal([moments.low, moments.high], [values.min(0), values.max(0)])
    for counts, values in zip(summary.action_bins, together["actions"].T, strict=True):
        np.testing.assert_array_equal(counts, np.histogram(values, BINS, (-1, 1))[0])
    assert summary.action_counts is None and summary.observation_counts is None


def test_discrete_actions_and_observations(tmp_path):
    whole = lambda n: lambda rng, length: rng.integers(0, n, length)
    episodes = layouts.play(LENGTHS, whole(5), whole(3))
    source = open_source(layouts.write_npz(tmp_path / "set", episodes))
    summary = summarise(source)
    for counts, key, n in ((summary.action_counts, "action", 3), (summary.observation_counts, "obs", 5)):
        values = np.concatenate([episode[key] for episode in episodes])
        assert counts.tolist() == [int((values == value).sum()) for value in range(n)]
    assert summary.action_moments is None and summary.observation_moments is None


def test_images_are_read_only_when_asked(tmp_path):
    episodes = layouts.play(LENGTHS, _images, lambda rng, length: rng.integers(0, 3, length))
    folder = layouts.write_npz(tmp_path / "set", episodes)
    source = open_source(folder)
    damaged = episodes[3] | {"obs": episodes[3]["obs"][:, :, :9]}
    np.savez(folder / "train_data_3.npz", **damaged)
    assert summarise(source).returns.tolist() == [float(episode["reward"].sum()) for episode in episodes]
    with pytest.raises(
        ValueError, match=r"train_data_3.npz: episode 3: obs must be \[T, 3, 10, 12\], got \[12, 3, 9, 12\]"
    ):
        summarise(source, images=True)


def test_bad_rewards_are_found_without_the_images(tmp_path):
    episodes = layouts.play(LENGTHS, _images, lambda rng, length: rng.integers(0, 3, length))
    episodes[1]["reward"][2] = np.nan
    source = open_source(layouts.write_npz(tmp_path / "set", episodes))
    with pytest.raises(ValueError, match=r"train_data_1.npz: episode 1: reward contain NaN at step 2$"):
        summarise(source)


def test_parts_add_up_to_the_whole():
    values = np.random.default_rng(0).normal(1e4, 1, (50, 3))
    values[:, 1] = 0.1
    moments = Moments(3)
    for part in np.split(values, [1, 7, 30]):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.deviation[[0, 2]], values.std(0)[[0, 2]], rtol=1e-9)
    assert moments.deviation[1] == 0 and moments.count == 50


def test_observation_statistics_are_kept():
    source = counting_source([3, 5])
    read: list[int] = []

    class Counted:
        observation_space, action_space, lengths = (
            source.observation_space,
            source.action_space,
            source.lengths,
        )

        def __len__(self):
            return 2

        def __getitem__(self, index):
            read.append(index)
            return source[index]

    counted = Counted()
    first = observation_statistics(counted)
    expected = first[0].copy()
    first[0][:] = 9  # what is given belongs to who asked
    np.testing.assert_array_equal(observation_statistics(counted)[0], expected)
    assert read == [0, 1]
    observation_statistics(Counted())
    assert read == [0, 1, 0, 1]


def test_text_on_a_set(tmp_path):
    episodes = layouts.walks([4, 6, 5], observation=25)
    source = open_source(layouts.write_d4rl(tmp_path / "walks.hdf5", episodes, timeouts=np.zeros(15, bool)))
    lines = describe(source, summarise(source))
    size = (tmp_path / "walks.hdf5").stat().st_size
    assert lines[0] == str(tmp_path / "walks.hdf5")
    assert lines[1].split(None, 1) == ["layout", f"D4RL HDF5, 1 file, {size / 1000:.1f} KB"]
    rows = {line[:16].strip(): line[16:] for line in lines[2:]}
    assert rows["observations"] == "vectors [25]"
    assert rows["actions"] == "continuous [2], -1 to 1"
    assert rows["episodes"] == "2"
    assert rows["steps"] == f"10, {10 * (25 + 2 + 1) * 4 / 1000:.1f} KB when decoded"
    assert "                5 steps after the last end are dropped" in lines
    assert rows["length"].startswith("min 4  median 5  max 6  mean 5  |")
    returns = [float(episode["rewards"].sum()) for episode in episodes[:2]]
    assert rows["return"].startswith(
        f"min {min(returns):.4g}  median {np.mean(returns):.4g}  max {max(returns):.4g}"
    )
    assert "observation 19" in rows and "observation 20" not in rows and lines[-1].strip() == "and 5 more"
    for index in range(2):
        values = np.concatenate([episode["actions"][:, index] for episode in episodes[:2]])
        assert f"mean {values.mean():10.4g}" in rows[f"action {index}"]
        assert f"{bar(np.histogram(values, BINS, (-1, 1))[0])} 1" in rows[f"action {index}"]


def test_text_on_discrete_spaces(tmp_path):
    choose = lambda rng, length: np.where(np.arange(length) % 4 == 0, 29, np.arange(length) % 2)
    source = open_source(layouts.write_npz(tmp_path / "set", layouts.play([8], choose, choose)))
    lines = describe(source, summarise(source))
    rows = {line[:16].strip(): line[16:] for line in lines}
    assert rows["actions"] == rows["observations"] == "discrete, 0 to 29"
    assert rows["action 0"].split() == ["25.0", "%", "█" * 10]
    assert rows["action 1"].split() == ["50.0", "%", "█" * 20]
    assert rows["observation 29"].split() == ["25.0", "%", "█" * 10]
    assert sum(line.strip() == "0.0 %  10 rarer ones" for line in lines) == 2


def test_text_on_an_episode(tmp_path):
    source = open_source(layouts.write_pickle(tmp_path / "mazes.pickle", layouts.mazes([12, 3])))
    lines = describe_episode(source, 0, rows=2)
    assert lines[0] == f"episode 0: 12 steps, return 1, in {tmp_path / 'mazes.pickle'}"
    assert lines[1].split() == ["step", "observation", "action", "reward", "return-to-go"]
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "...", "10", "11"]
    seen = source[0].observations
    assert lines[2].split() == ["0", *(f"{value:.3g}" for value in seen[0]), "0", "0", "1"]
    assert lines[-1].split() == ["11", *(f"{value:.3g}" for value in seen[11]), "1", "1", "1"]
    assert [line.split()[0] for line in describe_episode(source, -1, rows=2)[2:]] == ["0", "1", "2"]
    assert len(describe_episode(source, 0, rows=50)) == 14


def test_bars(monkeypatch):
    assert bar([0, 1, 4, 8]) == " ▁▄█" and bar([]) == "" and bar([0, 0]) == "  "
    assert bar([0, 1, 1000]) == " ▁█"  # what is there is seen, however little

    class Plain:
        encoding = "ascii"

    monkeypatch.setattr(sys, "stdout", Plain())
    assert bar([0, 4, 8]) == " =%"


@pytest.mark.parametrize(("channels", "shown"), [(3, [0, 1, 2]), (1, [0, 0, 0]), (4, [3, 3, 3])])
def test_a_strip_shows_frames_of_the_episode(tmp_path, channels, shown):
    images = np.random.default_rng(0).integers(0, 256, (20, channels, 40, 30)).astype(np.uint8)
    episode = Episode(images, np.zeros(20, np.int64), np.zeros(20, np.float32))
    assert draw_strip(episode, tmp_path / "strip.png", frames=5) == [0, 5, 10, 14, 19]
    pixels = np.asarray(Image.open(tmp_path / "strip.png"))
    factor = 3  # 40 pixels three times are the first multiple above 96
    assert pixels.shape == (120, 5 * 90 + 4 * 2, 3)
    for number, step in enumerate([0, 5, 10, 14, 19]):
        frame = pixels[factor // 2 :: factor, number * 92 + 1 :][:, :90:factor]
        np.testing.assert_array_equal(frame, images[step, shown].transpose(1, 2, 0))
    assert draw_strip(episode, tmp_path / "strip.png", frames=50) == list(range(20))


def test_what_is_no_image_is_not_drawn(tmp_path):
    with pytest.raises(ValueError, match=r"observations must be images to be drawn, got \[3, 2\] float32"):
        draw_strip(counting_source([3])[0], tmp_path / "strip.png")
    with pytest.raises(ValueError, match="frames must be at least 1, got 0"):
        draw_strip(
            Episode(np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2), np.zeros(2)), tmp_path / "strip.png", 0
        )
    assert not (tmp_path / "strip.png").exists()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-2, 3, (5,), np.float32),
        spaces.Box(-np.inf, np.inf, (5,), np.float32),
        spaces.Discrete(7, start=3),
        spaces.Box(0, 255, (84, 60, 3), np.uint8),
        spaces.Box(0, 255, (4, 84, 60), np.uint8),
    ],
)
def test_spaces_lead_back(space):
    assert SpaceSpec.from_space(space, "observation").to_space() == space
