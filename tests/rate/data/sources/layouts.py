"""Data sets written as their authors wrote them: the keys, number types and files of each layout."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import h5py
import numpy as np

from rate.data import Episode

D4RL_KEYS = ("observations", "next_observations", "actions", "rewards", "terminals")


def walks(
    lengths: list[int], observation: int = 3, action: int = 2, seed: int = 0
) -> list[dict[str, np.ndarray]]:
    """Episodes with D4RL's keys; those of even length terminate, the others are cut."""
    rng = np.random.default_rng(seed)
    episodes = []
    for length in lengths:
        seen = rng.normal(size=(length + 1, observation)).astype(np.float32)
        episodes.append(
            {
                "observations": seen[:-1],
                "next_observations": seen[1:],
                "actions": rng.uniform(-1, 1, (length, action)).astype(np.float32),
                "rewards": rng.normal(size=length).astype(np.float32),
                "terminals": (np.arange(length) == length - 1) & (length % 2 == 0),
            }
        )
    return episodes


def write_d4rl(
    path: Path, episodes: list[dict[str, np.ndarray]], with_timeouts: bool = True, **changes
) -> Path:
    """Flat arrays; ``changes`` replace whole arrays, or leave out those that are None."""
    arrays = {key: np.concatenate([episode[key] for episode in episodes]) for key in D4RL_KEYS}
    if with_timeouts:
        ends = np.cumsum([len(episode["rewards"]) for episode in episodes]) - 1
        arrays["timeouts"] = np.isin(np.arange(ends[-1] + 1), ends) & ~arrays["terminals"]
    with h5py.File(path, "w") as file:
        for key, values in (arrays | changes).items():
            if values is not None:
                file.create_dataset(key, data=values, compression="gzip" if np.ndim(values) else None)
        file.create_group("infos")["qpos"] = np.zeros(2)  # D4RL files hold more than is read
    return path


def write_pickle(path: Path, value, protocol: int | None = None) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def mazes(lengths: list[int], seed: int = 0) -> dict[int, dict[str, np.ndarray]]:
    """Episodes as the published T-Maze data generator keeps them: observations and returns-to-go with the end."""
    rng = np.random.default_rng(seed)
    episodes = {}
    for number, length in enumerate(lengths):
        won = number % 3 != 2
        episodes[number] = {
            "obs": rng.integers(-1, 2, (length + 1, 4)).astype(np.float64),
            "action": np.array([0] * (length - 1) + [3 if number % 2 else 1]),
            "rtg": np.array([1.0] * length + [0.0 if won else 1.0]),
            "done": (np.arange(length) == length - 1).astype(int),
        }
    return episodes


def write_npz(folder: Path, episodes: list[dict[str, np.ndarray]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, episode in enumerate(episodes):
        np.savez(folder / f"train_data_{number}.npz", **episode)
    return folder


def play(lengths: list[int], observe, act, seed: int = 0, **more) -> list[dict[str, np.ndarray]]:
    """Episodes with the published npz keys; ``observe(rng, T)`` and ``act(rng, T)`` make their arrays."""
    rng = np.random.default_rng(seed)
    return [
        {
            "obs": observe(rng, length),
            "action": act(rng, length),
            "reward": rng.integers(-2, 3, length) / 2,
            "done": (np.arange(length) == length - 1).astype(int),
            **{key: make(rng, length) for key, make in more.items()},
        }
        for length in lengths
    ]


def write_chunk(folder: Path, chunk: int, **arrays: np.ndarray) -> None:
    """``observation``, ``action``, ``reward``, ``terminal`` as Dopamine saves its replay buffer."""
    folder.mkdir(parents=True, exist_ok=True)
    dtypes = {"observation": np.uint8, "action": np.int32, "reward": np.float32, "terminal": np.uint8}
    files = {f"$store$_{key}": np.asarray(arrays[key], dtype) for key, dtype in dtypes.items()}
    files["add_count"] = np.array(arrays.get("add_count", len(arrays["action"])))
    files["invalid_range"] = np.zeros(5, np.int64)
    for name, array in files.items():
        with gzip.open(folder / f"{name}_ckpt.{chunk}.gz", "wb", compresslevel=1) as file:
            np.save(file, array)


def frames(
    lengths: list[int], seed: int = 0, padding: int = 3, tail: int = 0, size: int = 6
) -> dict[str, np.ndarray]:
    """A chunk: episodes in a row, each after Dopamine's zero rows, then ``tail`` rows of one without an end."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[np.ndarray]] = {"observation": [], "action": [], "reward": [], "terminal": []}
    for number, length in enumerate([*lengths, *[tail] * bool(tail)]):
        blank = np.zeros(padding)
        rows["observation"].append(np.zeros((padding, size, size), np.uint8))
        rows["observation"].append(rng.integers(1, 256, (length, size, size)).astype(np.uint8))
        rows["action"] += [blank, rng.integers(0, 4, length)]
        rows["reward"] += [blank, rng.integers(-1, 2, length)]
        rows["terminal"] += [blank, (np.arange(length) == length - 1) & (number < len(lengths))]
    return {key: np.concatenate(parts) for key, parts in rows.items()}


def assert_equal(episode: Episode, observations, actions, rewards) -> None:
    """Every array of an episode, value by value."""
    np.testing.assert_array_equal(episode.observations, observations)
    np.testing.assert_array_equal(episode.actions, actions)
    np.testing.assert_array_equal(episode.rewards, np.asarray(rewards, np.float32))
