"""Training through memory: the loss of a batch of episodes, segment by segment.

A loss reaches back through the memory over ``gradient_span`` segments. *Memory replay* keeps only the state at each
segment's start and computes a segment's activations again in the backward pass, newest segment first, handing the
gradient of the memory to the segment before: exact, for one more forward pass, with one segment's activations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rate.state import SegmentState

if TYPE_CHECKING:
    from rate.data import SegmentBatch
    from rate.models import Model


@dataclass
class BatchLoss:
    """Of all real steps of a batch.

    Args:
        loss: scalar to differentiate: mean cross-entropy, or mean squared error per action component.
        accuracy: share of discrete actions predicted right, scalar without gradient; NaN for continuous actions.
    """

    loss: Tensor
    accuracy: Tensor


@dataclass
class SegmentSums:
    """Sums over a segment's real steps, and the state after it."""

    loss: Tensor
    correct: Tensor
    state: SegmentState


def read_segment(model: Model, segment: SegmentBatch, state: SegmentState) -> SegmentSums:
    """Reads one segment of a batch.

    A batch entry whose segment is all padding keeps its memory as it is.

    Args:
        segment: tensors ``[B, K, ...]``, padded at the end.
        state: from the segment before.
    """
    out = model(segment.observations, segment.actions, segment.returns_to_go, state)
    losses, correct = _step_losses(out.predictions, segment.actions)
    mask = segment.mask
    after = out.state.keep_memory_where(~mask.any(1), state)
    return SegmentSums((losses * mask).sum(), (correct & mask).sum(), after)


def batch_loss(
    model: Model, batch: SegmentBatch, *, gradient_span: int | None = None, replay: bool = True
) -> BatchLoss:
    """The loss of all segments of a batch.

    Args:
        model: in training mode as a rule.
        batch: ``[B, N * K, ...]``; its number of steps is a multiple of the segment length.
        gradient_span: segments that a loss reaches back, itself included: the memory is cut from the graph every
            ``gradient_span`` segments. None for all of them, 1 for none but its own.
        replay: memory replay; without it the activations of all segments are kept.

    Raises:
        ValueError: for a gradient span below 1.
    """
    if gradient_span is not None and gradient_span < 1:
        raise ValueError(f"gradient_span must be at least 1 or None, got {gradient_span}")
    segments = list(unfinished_segments(model, batch))
    state = initial_state(model, batch.mask.shape[0])
    losses, correct = [], []
    for index, segment in enumerate(segments):
        if gradient_span is not None and index and index % gradient_span == 0:
            state = state.detach()
        state = state.rows(slice(0, segment.mask.shape[0]))
        sums = (
            _replayed(model, segment, state)
            if replay and len(segments) > 1
            else read_segment(model, segment, state)
        )
        losses.append(sums.loss)
        correct.append(sums.correct)
        state = sums.state
    steps = batch.mask.sum()
    accuracy = torch.stack(correct).sum() / steps
    if model_config(model).action == "continuous":
        accuracy = accuracy.new_full((), torch.nan)
    return BatchLoss(torch.stack(losses).sum() / steps, accuracy.detach())


def unfinished_segments(model: Model, batch: SegmentBatch) -> Iterator[SegmentBatch]:
    """The batch's segments in turn, without the episodes that have ended: longest episodes first, batch shrinking.

    A compiled model gets all episodes every time, since another batch size would be compiled anew.
    """
    length = model_config(model).segment_length
    real = batch.mask.unflatten(1, (-1, length)).any(-1)
    to_come = real.flip(1).cumsum(1).flip(1) > 0  # [B, N]: a real step in this segment or later
    ordered = batch.rows(to_come.sum(1).argsort(descending=True, stable=True))
    counts = to_come.sum(0).tolist()
    compiled = hasattr(model, "_orig_mod")
    for segment, count in zip(ordered.segments(length), counts, strict=True):
        yield segment if compiled else segment.rows(slice(0, count))


def model_config(model: Any) -> Any:
    """The configuration of a model, compiled or not."""
    return getattr(model, "_orig_mod", model).config


def initial_state(model: Any, batch_size: int) -> SegmentState:
    """The initial state of a model, compiled or not."""
    return getattr(model, "_orig_mod", model).initial_state(batch_size)


def _replayed(model: Model, segment: SegmentBatch, state: SegmentState) -> SegmentSums:
    """:func:`read_segment` that keeps its inputs only and runs again in the backward pass, random numbers included."""

    def run(memory: Tensor | None, *cache: Tensor) -> tuple[Any, ...]:
        sums = read_segment(model, segment, SegmentState(memory, list(cache)))
        return sums.loss, sums.correct, sums.state.memory, *sums.state.cache

    loss, correct, memory, *cache = checkpoint(run, state.memory, *state.cache, use_reentrant=False)
    return SegmentSums(loss, correct, SegmentState(memory, cache))


def _step_losses(predictions: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Per step ``[B, K]``: the loss, and whether a discrete action was predicted right."""
    # At least float32: autocast may have lowered the predictions.
    precise = predictions.to(torch.promote_types(predictions.dtype, torch.float32))
    if actions.dim() == 2:
        losses = F.cross_entropy(precise.transpose(1, 2), actions, reduction="none")
        return losses, predictions.detach().argmax(-1) == actions
    losses = F.mse_loss(precise, actions.to(precise.dtype), reduction="none").mean(-1)
    return losses, torch.zeros_like(losses, dtype=torch.bool)
