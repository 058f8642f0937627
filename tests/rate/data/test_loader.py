"""Batches made by workers are those made without, whatever the source; memory is flat."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

from rate.data import SegmentWindows, open_source, sampled_batches
from tests.rate.data.helpers import counting_source
from tests.rate.data.sources import layouts

LENGTHS = [7, 3, 12, 5]


def _image_npz(folder):
    observe = lambda rng, n: rng.integers(0, 256, (n, 3, 36, 36)).astype(np.uint8)
    return layouts.write_npz(folder, layouts.play(LENGTHS, observe, lambda rng, n: rng.integers(0, 3, n)))


def _replay(folder):
    layouts.write_chunk(folder, 0, **layouts.frames(LENGTHS))
    return folder


SOURCES = {
    "d4rl": lambda folder: layouts.write_d4rl(folder / "walks.hdf5", layouts.walks(LENGTHS)),
    "gym pickle": lambda folder: layouts.write_pickle(folder / "walks.pkl", layouts.walks(LENGTHS)),
    "rate pickle": lambda folder: layouts.write_pickle(folder / "mazes.pickle", layouts.mazes(LENGTHS)),
    "npz": lambda folder: _image_npz(folder / "npz"),
    "dqn replay": lambda folder: _replay(folder / "logs"),
}


def _tensors(batch):
    return batch.observations, batch.actions, batch.returns_to_go, batch.mask, batch.timesteps


@pytest.mark.parametrize("layout", SOURCES)
def test_workers_make_the_same_batches(tmp_path, layout):
    windows = SegmentWindows(open_source(SOURCES[layout](tmp_path)), 2, 2)
    windows.source[0]  # opened and used before workers are forked
    state = torch.get_rng_state()
    alone = list(sampled_batches(windows, range(3, 9), 4, seed=5))
    together = list(sampled_batches(windows, range(3, 9), 4, seed=5, workers=2))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(alone) == len(together) == 6
    for one, other in zip(alone, together, strict=True):
        for expected, found in zip(_tensors(one), _tensors(other), strict=True):
            assert expected.dtype == found.dtype and torch.equal(expected, found)
    if layout in ("npz", "dqn replay"):
        assert together[0].observations.dtype == torch.uint8
    copy = pickle.loads(pickle.dumps(windows))  # as workers that are not forked get it
    assert all(map(torch.equal, _tensors(copy.sample(3, 4, 5)), _tensors(alone[0])))


def test_an_error_in_a_worker_is_the_error(tmp_path):
    path = layouts.write_d4rl(tmp_path / "walks.hdf5", layouts.walks(LENGTHS))
    with h5py.File(path, "r+") as file:
        file["rewards"][8] = np.nan
    windows = SegmentWindows(open_source(path), 2, 8)
    with pytest.raises(ValueError, match=r"walks.hdf5: episode 1: rewards contain NaN at step 1$"):
        list(sampled_batches(windows, range(3), 4, seed=0, workers=2))


def test_workers_share_the_cache_and_leave_ctrl_c_alone(tmp_path):
    source = counting_source([4] * 6)
    source.divide_cache = lambda parts: setattr(source, "parts", parts)  # type: ignore[attr-defined]

    class Asked:
        def __init__(self, source):
            self.observation_space, self.action_space = source.observation_space, source.action_space
            self.lengths = source.lengths

        def __len__(self):
            return len(source)

        def __getitem__(self, index):
            assert source.parts == 2 and os.getpid() != parent  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGINT)
            return source[index]

        divide_cache = staticmethod(source.divide_cache)  # type: ignore[attr-defined]

    parent = os.getpid()
    batches = sampled_batches(SegmentWindows(Asked(source), 2, 2), range(4), 3, seed=0, workers=2)
    assert sum(len(batch.mask) for batch in batches) == 12


def test_workers_end_when_the_batches_are_closed(tmp_path):
    source = open_source(layouts.write_d4rl(tmp_path / "walks.hdf5", layouts.walks(LENGTHS)))
    batches = sampled_batches(SegmentWindows(source, 2, 2), range(10**6), 4, seed=0, workers=2)
    next(batches)
    children = _children()
    assert len(children) >= 2
    batches.close()
    for _ in range(50):
        if not children & _children():
            break
        time.sleep(0.1)
    assert not children & _children()


def _children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(file.read().split())


def test_a_number_of_workers_below_none_is_named():
    with pytest.raises(ValueError, match="workers must not be negative, got -1"):
        sampled_batches(SegmentWindows(counting_source([3]), 2, 2), range(3), 2, 0, workers=-1)


def test_a_share_of_the_cache_is_kept(tmp_path):
    path = layouts.write_d4rl(tmp_path / "walks.hdf5", layouts.walks([5] * 8))
    one = 5 * (3 * 4 + 2 * 4 + 4 + 4)
    source = open_source(path, cache_bytes=6 * one)
    for index in range(8):
        source[index]
    assert source.cached_bytes == 6 * one
    source.divide_cache(3)
    assert source.cached_bytes == 2 * one
    assert source[7] is source[7] and source.cached_bytes == 2 * one
    assert pickle.loads(pickle.dumps(source)).cached_bytes == 0


GROWTH = """
import sys
import h5py, PIL, tqdm
from rate.data import SegmentWindows, open_source

def own():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))

first = own()
for path in sys.argv[1:]:
    source = open_source(path, cache_bytes=2 << 20)
    windows = SegmentWindows(source, 10, 3)
    for update in range(20):
        windows.sample(update, 8, 0)
    steps = sum(source[index].length for index in range(len(source)))
    print(own() - first, steps)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux' /proc")
def test_memory_stays_flat_on_large_files(tmp_path):
    """Two files of 70 MB are read through a cache of 2 MB: less than 25 MB stay, a batch and libraries among them."""
    rows, width = 1 << 17, 128
    with h5py.File(tmp_path / "large.hdf5", "w") as file:
        for key, shape in (("observations", (rows, width)), ("actions", (rows, 2)), ("rewards", (rows,))):
            file.create_dataset(key, data=np.ones(shape, np.float32), chunks=(500, *shape[1:]))
        file["terminals"] = np.arange(1, rows + 1) % 500 == 0
        file["timeouts"] = np.zeros(rows, bool)
    one, count = layouts.frames([1], padding=0, size=84), 10_000
    chunk = {key: np.repeat(values, count, axis=0) for key, values in one.items()}
    chunk["terminal"] = np.arange(count) % 1000 == 999
    layouts.write_chunk(tmp_path / "logs", 0, **chunk)
    command = [sys.executable, "-c", GROWTH, str(tmp_path / "large.hdf5"), str(tmp_path / "logs")]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [steps for _, steps in found] == [rows // 500 * 500, 10_000]
    assert all(grown < 25_000 for grown, _ in found), found
