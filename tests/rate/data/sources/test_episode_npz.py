"""The published npz episodes, environment by environment: every array comes back, damage is named."""

from __future__ import annotations

import numpy as np
import pytest

from rate.data import SpaceSpec
from rate.data.sources import NpzEpisodes
from tests.rate.data.sources.layouts import assert_equal, play, write_npz

LENGTHS = [4, 7, 1, 2, 5, 3, 6, 8, 9, 2, 3, 12]  # more than ten: files are not in alphabetical order


def _whole(n, *shape):
    return lambda rng, length: rng.integers(0, n, (length, *shape))


def _real(*shape):
    return lambda rng, length: rng.normal(size=(length, *shape)).astype(np.float32)


def _images(*shape):
    return lambda rng, length: rng.integers(0, 256, (length, *shape)).astype(np.uint8)


def _cards(rng, length):
    """One of 2, 4 and 13, in a row per step as the published collector leaves them."""
    return rng.integers(0, [2, 4, 13], (length, 3))[:, None]


ONE_HOT = SpaceSpec("vector", (19,), low=0.0, high=1.0)
POPGYM = {
    "one number": (_whole(4), _whole(4), SpaceSpec("discrete", (), n=4), SpaceSpec("discrete", (), n=4)),
    "one number in a row": (_whole(4, 1), _whole(5), SpaceSpec("discrete", (), n=4), SpaceSpec("discrete", (), n=5)),
    "several numbers": (_cards, _whole(26), ONE_HOT, SpaceSpec("discrete", (), n=26)),
    "floats in rows": (_real(1, 2), _whole(2), SpaceSpec("vector", (2,)), SpaceSpec("discrete", (), n=2)),
    "a board": (_whole(2), _whole(8, 2), SpaceSpec("discrete", (), n=2), SpaceSpec("discrete", (), n=64)),
    "a pendulum": (_real(2), _real(1), SpaceSpec("vector", (2,)), None),
    "a long action": (_real(2), _real(3), SpaceSpec("vector", (2,)), None),
}  # fmt: skip


@pytest.mark.parametrize("case", POPGYM)
def test_popgym(tmp_path, case):
    observe, act, observation_space, action_space = POPGYM[case]
    episodes = play(LENGTHS, observe, act)
    source = NpzEpisodes(write_npz(tmp_path / "popgym-RepeatFirstEasy-v0", episodes))
    assert source.lengths.tolist() == LENGTHS
    assert source.observation_space == observation_space
    if action_space is not None:
        assert source.action_space == action_space
    else:
        every = np.concatenate([episode["action"] for episode in episodes])
        assert source.action_space == SpaceSpec(
            "continuous", every.shape[1:], low=float(every.min()), high=float(every.max())
        )
    for index, episode in enumerate(episodes):
        observations, actions = episode["obs"].astype(np.float64), episode["action"]
        if observation_space.kind == "discrete":
            observations = observations.ravel()
        elif case == "several numbers":
            parts = zip((2, 4, 13), episode["obs"][:, 0].T, strict=True)
            observations = np.concatenate([np.eye(size)[values] for size, values in parts], 1)
        elif observations.ndim == 3:
            observations = observations[:, 0]
        if case == "a board":
            actions = actions[:, 0] * 8 + actions[:, 1]
        assert_equal(source[index], observations.astype(np.float32), actions, episode["reward"])
        np.testing.assert_array_equal(source.actions_and_rewards(index)[0], actions)
        stored = source.arrays(index)
        assert sorted(stored) == sorted(episode)
        for key, values in episode.items():
            np.testing.assert_array_equal(stored[key], values)
            assert stored[key].dtype == values.dtype


def test_minigrid_memory(tmp_path):
    pixels = play([5, 3], _images(3, 84, 84), _whole(3))
    stored = [episode | {"obs": episode["obs"].astype(np.float32) / 255} for episode in pixels]
    source = NpzEpisodes(write_npz(tmp_path / "Minigrid_Memory", stored))
    assert source.observation_space == SpaceSpec("image", (3, 84, 84), low=0.0, high=255.0)
    for index, episode in enumerate(pixels):
        assert_equal(source[index], episode["obs"], episode["action"], episode["reward"])
        assert source[index].observations.dtype == np.uint8


def test_vizdoom(tmp_path):
    episodes = play([6, 6], _images(3, 64, 112), _whole(5), is_red=lambda rng, length: np.full(length, 1.0))
    episodes[1]["done"][-1] = 0
    source = NpzEpisodes(write_npz(tmp_path / "ViZDoom_Two_Colors", episodes))
    assert source.observation_space == SpaceSpec("image", (3, 64, 112), low=0.0, high=255.0)
    for index, episode in enumerate(episodes):
        assert_equal(source[index], episode["obs"], episode["action"], episode["reward"])
        np.testing.assert_array_equal(source.arrays(index)["is_red"], episode["is_red"])
        recording = source.recording(index)
        np.testing.assert_array_equal(recording.observations, [*episode["obs"], episode["obs"][-1]])
        assert recording.terminated == (index == 0)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, bool])
def test_memory_maze_as_rate_reads_it(tmp_path, dtype):
    episodes = play(
        [8, 9], _images(64, 64, 3), lambda rng, length: np.eye(6, dtype=dtype)[rng.integers(0, 6, length)]
    )
    episodes = [{key: values for key, values in episode.items() if key != "done"} for episode in episodes]
    source = NpzEpisodes(write_npz(tmp_path / "9x9", episodes))
    assert source.observation_space == SpaceSpec(
        "image", (3, 64, 64), channels_last=True, low=0.0, high=255.0
    )
    assert source.action_space == SpaceSpec("discrete", (), n=6)
    for index, episode in enumerate(episodes):
        images = episode["obs"].transpose(0, 3, 1, 2)
        assert_equal(source[index], images, episode["action"].argmax(1), episode["reward"])
        recording = source.recording(index)
        np.testing.assert_array_equal(recording.observations[:-1], episode["obs"])
        assert recording.truncated


@pytest.mark.parametrize("key", ["obs", "image"])
def test_rows_that_follow_their_action_are_shifted(tmp_path, key):
    """Dreamer and Memory Maze: the action and reward of a row led to its image; the first row's are zeros."""
    rng = np.random.default_rng(0)
    episodes = [
        {
            key: rng.integers(0, 256, (length + 1, 64, 64, 3)).astype(np.uint8),
            "action": np.concatenate([np.zeros((1, 6)), np.eye(6)[rng.integers(0, 6, length)]]).astype(
                np.float32
            ),
            "reward": np.concatenate([[0], rng.integers(0, 2, length)]).astype(np.float32),
            "agent_pos": rng.normal(size=(length + 1, 2)),
        }
        for length in (7, 4)
    ]
    source = NpzEpisodes(write_npz(tmp_path / "mazes", episodes))
    assert source.lengths.tolist() == [7, 4]
    for index, episode in enumerate(episodes):
        images = episode[key][:-1].transpose(0, 3, 1, 2)
        assert_equal(source[index], images, episode["action"][1:].argmax(1), episode["reward"][1:])
        np.testing.assert_array_equal(source.recording(index).observations, episode[key])
        np.testing.assert_array_equal(source.arrays(index)["agent_pos"], episode["agent_pos"])


def test_archives_may_be_compressed_one_or_stored_by_columns(tmp_path):
    episode = play([6], _images(5, 40, 36), _whole(5))[0]
    np.savez_compressed(tmp_path / "one.npz", **episode | {"obs": np.asfortranarray(episode["obs"])})
    source = NpzEpisodes(tmp_path / "one.npz")
    assert_equal(source[0], episode["obs"], episode["action"], episode["reward"])


def test_a_limit_leaves_files_unread(tmp_path):
    folder = write_npz(tmp_path / "set", play([4] * 12, _real(2), _whole(3)))
    (folder / "train_data_9.npz").write_bytes(b"damaged")
    source = NpzEpisodes(folder, limit=14)
    assert source.lengths.tolist() == [4, 4, 4]
    assert [path.name for path in (source.file(0), source.file(2))] == [
        "train_data_0.npz",
        "train_data_2.npz",
    ]


BAD = {
    "a key": ({"reward": None}, r"train_data_1.npz lacks reward: it holds action, done, obs$"),
    "lengths": ({"action": np.zeros(3, int)}, r"train_data_1.npz: action holds 3 rows, expected 7 as reward does$"),
    "more to see": ({"obs": np.zeros((9, 2))}, r"train_data_1.npz: obs holds 9 rows, expected 7 as reward does$"),
    "size": ({"obs": np.zeros((7, 3))}, r"1.npz: obs is \[7, 3\] float64, expected \[T, 2\] float32 as in train"),
    "kind": ({"obs": np.zeros((7, 2), int)}, r"1.npz: obs is \[7, 2\] int64, expected \[T, 2\] float32 as in"),
    "actions": ({"action": np.zeros((7, 2), int)}, r"1.npz: action is \[7, 2\] int64, expected \[T\] int64 as"),
    "words": ({"reward": np.array(["no"] * 7)}, r"train_data_1.npz: reward must be real numbers, got <U2"),
    "objects": ({"reward": np.array([None] * 7)}, r"train_data_1.npz: reward holds Python objects, expected numbers"),
    "nothing": ({"obs": np.zeros((0, 2), "f"), "action": np.zeros(0, int), "reward": np.zeros(0)}, r"1: has no steps"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_archives_are_named(tmp_path, case):
    changes, message = BAD[case]
    episodes = play([4, 7, 3], _real(2), _whole(3))
    changed = {key: values for key, values in (episodes[1] | changes).items() if values is not None}
    folder = write_npz(tmp_path / "set", [episodes[0], changed, episodes[2]])
    with pytest.raises((ValueError, TypeError), match=message) as raised:
        NpzEpisodes(folder)
    assert str(folder) in str(raised.value)


READ_LATER = {
    "NaN": ({"obs": np.full((7, 2), np.nan, np.float32)}, r"train_data_1.npz: episode 1: obs contain NaN at step 0$"),
    "reward": ({"reward": np.full(7, np.inf)}, r"train_data_1.npz: episode 1: reward contain infinity at step 0$"),
}  # fmt: skip


@pytest.mark.parametrize("case", READ_LATER)
def test_bad_numbers_are_named_when_they_are_read(tmp_path, case):
    changes, message = READ_LATER[case]
    episodes = play([4, 7, 3], _real(2), _whole(3))
    source = NpzEpisodes(write_npz(tmp_path / "set", [episodes[0], episodes[1] | changes, episodes[2]]))
    assert source[0].length == 4
    with pytest.raises(ValueError, match=message):
        source[1]


def test_damaged_archives_are_named(tmp_path):
    folder = write_npz(tmp_path / "set", play([40, 70], _real(20), _whole(3)))
    path = folder / "train_data_1.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"train_data_1.npz cannot be read, it is damaged or cut short"):
        NpzEpisodes(folder)
    path.write_bytes(whole[:2000] + bytes(100) + whole[2100:])
    with pytest.raises(
        ValueError, match=r"train_data_1.npz cannot be read, it is damaged or cut short: Bad CRC-32"
    ):
        NpzEpisodes(folder)[1]
    path.unlink()
    source = NpzEpisodes(folder)
    (folder / "train_data_0.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_data_0.npz"):
        source[0]
    with pytest.raises(ValueError, match=r"set must hold at least one episode \(.npz\), got 0"):
        NpzEpisodes(folder)


def test_floats_that_are_no_pixels_are_named(tmp_path):
    for high, message in (
        (7.0, r"obs holds 0.0 to 7.0, expected pixels of 0 to 1"),
        (np.nan, "obs holds nan to nan"),
    ):
        episodes = play(
            [2], lambda rng, length: np.linspace(0, 1, length * 3 * 81).reshape(length, 3, 9, 9), _whole(3)
        )
        episodes[0]["obs"][1, 2, 8, 8] = high
        source = NpzEpisodes(write_npz(tmp_path / f"set{high}", episodes))
        with pytest.raises(ValueError, match=message):
            source[0]


def test_boards_and_one_hot_rows_are_checked(tmp_path):
    episodes = play([4, 7], _whole(3), lambda rng, length: np.full((length, 2), 3))
    four = NpzEpisodes(write_npz(tmp_path / "board", episodes))
    assert four.action_space.n == 16 and four[0].actions.tolist() == [15] * 4
    five = NpzEpisodes(tmp_path / "board", action_space=SpaceSpec("discrete", (), n=25))
    assert five.action_space.n == 25 and five[0].actions.tolist() == [18] * 4
    episodes[1]["action"][2, 0] = -1
    with pytest.raises(ValueError, match=r"train_data_1.npz: action holds -1 to 3, expected 0 to 3"):
        NpzEpisodes(write_npz(tmp_path / "board", episodes))[1]
    episodes = play([4, 7], _whole(3), lambda rng, length: np.eye(3, dtype=int)[rng.integers(0, 3, length)])
    episodes[1]["action"][2] = 1
    with pytest.raises(
        ValueError, match=r"train_data_1.npz: action has rows that are not one-hot, expected a single 1"
    ):
        NpzEpisodes(write_npz(tmp_path / "hot", episodes))


def test_several_integers_have_sizes(tmp_path):
    folder = write_npz(tmp_path / "cards", play([4, 7], _whole(3, 2), _whole(3)))
    source = NpzEpisodes(folder, observation_sizes=(5, 4))
    assert source.observation_space == SpaceSpec("vector", (9,), low=0.0, high=1.0)
    assert source.remark == "integers of 5, 4 values are one-hot"
    stored = source.arrays(1)["obs"]
    np.testing.assert_array_equal(source[1].observations[:, :5].argmax(1), stored[:, 0])
    np.testing.assert_array_equal(source[1].observations[:, 5:].argmax(1), stored[:, 1])
    assert source[1].observations.sum(1).tolist() == [2.0] * 7
    assert NpzEpisodes(folder).remark == "integers of 2 x 3 values are one-hot"
    for sizes in ((2, 4), (5,), (5, 4, 4)):
        with pytest.raises(
            ValueError, match=r"observation_sizes must exceed the largest obs in .*cards, 2 x 2, got "
        ):
            NpzEpisodes(folder, observation_sizes=sizes)
    with pytest.raises(
        ValueError, match=r"observation_sizes are for several integers, .*set holds \[T, 2\] float32"
    ):
        NpzEpisodes(write_npz(tmp_path / "set", play([4], _real(2), _whole(3))), observation_sizes=(5, 4))
    for number in (-1, 20_000):
        episodes = play([4], lambda rng, length, number=number: np.full((length, 2), number), _whole(3))
        with pytest.raises(
            TypeError, match=rf"obs holds {min(number, 0)} to {max(number, 0)}, expected several integers"
        ):
            NpzEpisodes(write_npz(tmp_path / f"far{number}", episodes))
