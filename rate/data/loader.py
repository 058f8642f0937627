"""Batches one after the other, made by this process or ahead of time by several others."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from rate.data.windows import SegmentBatch, SegmentWindows


def sampled_batches(
    windows: SegmentWindows,
    updates: range,
    batch_size: int,
    seed: int,
    *,
    workers: int = 0,
    pin_memory: bool = False,
) -> Generator[SegmentBatch, None, None]:
    """The batches of these updates in their order, the same for any number of workers, which end when it is closed.

    Args:
        windows: see :meth:`SegmentWindows.sample`.
        updates: numbers of the updates.
        batch_size: windows per batch.
        seed: of the order of windows.
        workers: processes that read and cut side by side, each with its share of the source's cache; 0 for none but
            this one. Their random states are not this process's, and it keeps its own.
        pin_memory: let workers' batches lie where a GPU can copy them from while it computes.

    Raises:
        ValueError: for a negative number of workers; and what the source raises, from whichever process.
    """
    if workers < 0:
        raise ValueError(f"workers must not be negative, got {workers}")
    samples = _Samples(windows, batch_size, seed)
    if not workers:
        return (samples.batch(update) for update in updates)
    loader = DataLoader(
        samples,
        batch_size=None,
        sampler=updates,  # type: ignore[arg-type]  # any sequence of indices does
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # by default it draws from the global one, and dropout with it
    )
    return _without_failures(iter(loader))


@dataclass
class _Samples(Dataset):  # type: ignore[type-arg]
    windows: SegmentWindows
    batch_size: int
    seed: int

    def batch(self, update: int) -> SegmentBatch:
        return self.windows.sample(update, self.batch_size, self.seed)

    def __getitem__(self, update: int) -> SegmentBatch | _Failure:
        try:
            return self.batch(update)
        except (
            ValueError,
            TypeError,
            OSError,
        ) as error:  # of bad data: raised without the worker's traceback
            return _Failure(error)


@dataclass(frozen=True)
class _Failure:
    error: Exception


def _without_failures(results: Iterator[SegmentBatch | _Failure]) -> Generator[SegmentBatch, None, None]:
    for result in results:
        if isinstance(result, _Failure):
            raise result.error
        yield result


def _begin_worker(number: int) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the process that trains, which ends its workers
    info = get_worker_info()
    assert info is not None
    samples: _Samples = info.dataset  # type: ignore[assignment]
    divide = getattr(samples.windows.source, "divide_cache", None)
    if divide is not None:
        divide(info.num_workers)
