"""Where the write tokens look: the attention by which a finished segment is written into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rate.layers import Attention
from rate.model import RATE
from rate.state import SegmentState
from rate_kernels import SegmentLayout


@dataclass(frozen=True)
class Look:
    """The attention of one segment's write tokens.

    All but ``peaks`` are means over tokens and heads, and sum to 1 in each layer. A mean hides the one head that looks
    for something; what stands out is seen in ``peaks``.

    Args:
        first: the segment's first step in the episode.
        peaks: float32 ``[layers, K]``, the greatest share that any head of any write token gave to a step's three
            tokens.
        steps: float32 ``[layers, K]``, what each step's three tokens got together.
        read_memory: float32 ``[layers]``, what the memory from before the segment got.
        cache: float32 ``[layers]``, what cached hidden states got.
        write_memory: float32 ``[layers]``, what the write tokens gave each other.
    """

    first: int
    peaks: np.ndarray
    steps: np.ndarray
    read_memory: np.ndarray
    cache: np.ndarray
    write_memory: np.ndarray

    def most(self, count: int) -> list[tuple[int, float]]:
        """The ``count`` steps of the episode that stand out, and their greatest share in any layer."""
        shares = self.peaks.max(0)
        order = np.argsort(-shares, kind="stable")[:count]
        return [(self.first + int(step), float(shares[step])) for step in order]

    @property
    def end(self) -> int:
        """The episode's step after the segment's last."""
        return self.first + self.peaks.shape[1]

    @property
    def remembered(self) -> np.ndarray:
        """float32 ``[layers]``, what memory and cache got: from before the segment, in the first one learned."""
        return self.read_memory + self.cache


@torch.inference_mode()
def written_from(model: RATE, observations: Tensor, actions: Tensor, returns_to_go: Tensor) -> list[Look]:
    """Reads an episode again, as it was acted, for what each of its segments was written from.

    Args:
        model: with memory tokens; read in evaluation mode and left as it is.
        observations: ``[T, *observation_shape]``, as the model reads them.
        actions: ``[T]`` int64 or ``[T, A]`` float.
        returns_to_go: ``[T, 1]``.

    Returns:
        One :class:`Look` for each segment that ended: ``T // segment_length`` of them.

    Raises:
        ValueError: for a model without memory tokens.
    """
    config = model.config
    if not config.num_memory:
        raise ValueError("model must have memory tokens, got one with num_memory 0")
    length, looks = config.segment_length, []
    state: SegmentState | None = None
    training = model.training
    model.eval()
    try:
        for first in range(0, len(observations) - length + 1, length):
            stop = first + length
            with _attention_seen(model) as seen:
                state = model(
                    observations[None, first:stop],
                    actions[None, first : stop if config.write_last_action else stop - 1],
                    returns_to_go[None, first:stop],
                    state,
                ).state
            looks.append(_look(first, length, seen))
    finally:
        model.train(training)
    return looks


@contextmanager
def _attention_seen(model: RATE) -> Iterator[list[tuple[SegmentLayout, Tensor]]]:
    """Gathers, layer by layer, the layout and the attention weights of what the model reads meanwhile."""
    seen: list[tuple[SegmentLayout, Tensor]] = []

    def see(attention: Attention, arguments: tuple) -> None:
        layout = next(a for a in arguments if isinstance(a, SegmentLayout))
        seen.append((layout, attention.weights(*arguments)))

    hooks = [m.register_forward_pre_hook(see) for m in model.modules() if isinstance(m, Attention)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _look(first: int, length: int, seen: list[tuple[SegmentLayout, Tensor]]) -> Look:
    layers = []
    for layout, weights in seen:
        m = layout.num_memory
        rows = weights[0, :, -m:].float()  # [H, m, Lk]
        tokens = rows.shape[-1] - layout.cache_len - 2 * m
        cache, read, steps, write = rows.split([layout.cache_len, m, tokens, m], -1)
        steps = torch.nn.functional.pad(steps, (0, 3 * length - tokens)).unflatten(-1, (length, 3)).sum(-1)
        shares = (part.sum(-1).mean() for part in (read, cache, write))
        layers.append((steps.amax((0, 1)), steps.mean((0, 1)), *shares))
    return Look(first, *(torch.stack(part).cpu().numpy() for part in zip(*layers, strict=True)))
