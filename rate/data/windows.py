"""Windows of segments: how episodes of any length become batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rate.data.episodes import EpisodeSource


@dataclass
class SegmentBatch:
    """A batch of windows of n segments of K steps, padded with zeros at the end.

    Args:
        observations: ``[B, n * K, *shape]`` float32, uint8 (images) or int64 (discrete, counted from 0).
        actions: ``[B, n * K]`` int64 (counted from 0) or ``[B, n * K, A]`` float32.
        returns_to_go: ``[B, n * K, 1]`` float32, of the whole episode.
        mask: ``[B, n * K]`` bool, True where a step is real.
        timesteps: ``[B, n * K]`` int64, the step's number in its episode.
    """

    observations: Tensor
    actions: Tensor
    returns_to_go: Tensor
    mask: Tensor
    timesteps: Tensor

    def num_segments(self, segment_length: int) -> int:
        """n for segments of this many steps.

        Raises:
            ValueError: if the batch does not split evenly.
        """
        steps = self.mask.shape[1]
        if segment_length < 1 or steps % segment_length:
            raise ValueError(f"segment_length must divide the batch's {steps} steps, got {segment_length}")
        return steps // segment_length

    def segments(self, segment_length: int) -> Iterator[SegmentBatch]:
        """The segments one after the other, as views ``[B, K, ...]``."""
        for index in range(self.num_segments(segment_length)):
            part = slice(index * segment_length, (index + 1) * segment_length)
            yield SegmentBatch(*(tensor[:, part] for tensor in self._tensors()))

    def rows(self, index: Tensor | slice) -> SegmentBatch:
        """The windows ``index`` of the batch: int64 ``[n]`` or a slice."""
        return SegmentBatch(*(tensor[index] for tensor in self._tensors()))

    def to(self, device: torch.device | str) -> SegmentBatch:
        """The same batch on a device; from pinned memory the copy goes on while other work is done."""
        ahead = torch.device(device).type != "cpu"
        return SegmentBatch(*(tensor.to(device, non_blocking=ahead) for tensor in self._tensors()))

    def pin_memory(self) -> SegmentBatch:
        """The same batch where a GPU can copy it from by itself."""
        return SegmentBatch(*(tensor.pin_memory() for tensor in self._tensors()))

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.observations, self.actions, self.returns_to_go, self.mask, self.timesteps


class SegmentWindows:
    """Cuts the episodes of a source into windows of at most ``num_segments`` segments.

    An episode that fits gives one window. A longer one gives windows at steps 0, ``stride``, ``2 * stride``
    and so on, and one that ends with the episode, so every step is in a window.

    Args:
        source: of the episodes; read when a batch needs them.
        segment_length: K, steps per segment.
        num_segments: N, segments per window at most.
        stride: steps between windows of an episode, 1 to N * K; None for N * K.

    Raises:
        ValueError: for a source without episodes, or a number out of range.
    """

    def __init__(
        self, source: EpisodeSource, segment_length: int, num_segments: int, stride: int | None = None
    ) -> None:
        if not len(source):
            raise ValueError("source must hold at least one episode, got 0")
        for name, value in (("segment_length", segment_length), ("num_segments", num_segments)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.window = segment_length * num_segments
        stride = self.window if stride is None else stride
        if not 1 <= stride <= self.window:
            raise ValueError(f"stride must be 1 to {self.window} (a window's steps), got {stride}")
        self.source, self.segment_length, self.num_segments, self.stride = (
            source,
            segment_length,
            num_segments,
            stride,
        )
        lengths = np.asarray(source.lengths, dtype=np.int64)
        last_start = np.maximum(lengths - self.window, 0)
        counts = -(-last_start // stride) + 1
        self._episode = np.repeat(np.arange(len(lengths)), counts)
        number = np.arange(len(self._episode)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._start = np.minimum(number * stride, last_start[self._episode])
        self._length = np.minimum(lengths[self._episode] - self._start, self.window)
        self._permutations: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._episode)

    def location(self, index: int) -> tuple[int, int, int]:
        """Episode, first step and number of steps of a window."""
        return int(self._episode[index]), int(self._start[index]), int(self._length[index])

    def batch(self, indices: Sequence[int] | np.ndarray) -> SegmentBatch:
        """The windows with these numbers, in as few segments as the longest of them needs.

        Raises:
            ValueError: for no indices.
            IndexError: for one out of range.
        """
        if not len(indices):
            raise ValueError("indices must name at least one window, got none")
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise IndexError(f"indices must be 0 to {len(self) - 1}, got {chosen.min()} to {chosen.max()}")
        segments = -(-int(self._length[chosen].max()) // self.segment_length)
        lead = (len(chosen), segments * self.segment_length)
        seen, acted = self.source.observation_space, self.source.action_space
        observations = np.zeros((*lead, *seen.shape), seen.dtype)
        actions = np.zeros((*lead, *acted.shape), acted.dtype)
        returns_to_go = np.zeros((*lead, 1), np.float32)
        mask = np.zeros(lead, np.bool_)
        timesteps = np.zeros(lead, np.int64)
        for row, index in enumerate(chosen):
            number, start, length = self.location(index)
            episode, part = self.source[number], slice(start, start + length)
            observations[row, :length] = episode.observations[part]
            actions[row, :length] = episode.actions[part]
            if seen.kind == "discrete":
                observations[row, :length] -= seen.start
            if acted.kind == "discrete":
                actions[row, :length] -= acted.start
            returns_to_go[row, :length, 0] = episode.returns_to_go[part]
            mask[row, :length] = True
            timesteps[row, :length] = np.arange(start, start + length)
        arrays = (observations, actions, returns_to_go, mask, timesteps)
        return SegmentBatch(*(torch.from_numpy(array) for array in arrays))

    def sample(self, update: int, batch_size: int, seed: int) -> SegmentBatch:
        """The batch of an update: the next windows of endless shuffled epochs, each window once per epoch.

        Depends on the arguments alone, so a run can go on from any update.

        Raises:
            ValueError: for a batch size below 1, or a negative update or seed.
        """
        return self.batch(self.sample_indices(update, batch_size, seed))

    def sample_indices(self, update: int, batch_size: int, seed: int) -> np.ndarray:
        """Numbers ``[batch_size]`` int64 of the windows in :meth:`sample`."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if update < 0 or seed < 0:
            raise ValueError(f"update and seed must not be negative, got {update} and {seed}")
        position, end = update * batch_size, (update + 1) * batch_size
        parts = []
        while position < end:
            epoch, offset = divmod(position, len(self))
            part = self._permutation(seed, epoch)[offset : offset + end - position]
            parts.append(part)
            position += len(part)
        return np.concatenate(parts)

    def _permutation(self, seed: int, epoch: int) -> np.ndarray:
        """The order of an epoch; the last two are kept, as a batch may span both."""
        key = (seed, epoch)
        if key not in self._permutations:
            while len(self._permutations) > 1:
                self._permutations.pop(next(iter(self._permutations)), None)
            self._permutations[key] = np.random.default_rng(key).permutation(len(self))
        return self._permutations[key]
