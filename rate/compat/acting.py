"""What a model that reads windows remembers between the steps of an episode it acts in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Steps = tuple[Tensor, ...]
"""Tensors ``[1, L, ...]`` of L successive steps. The last of them holds the actions, and of these the newest is not
known yet: whatever stands there."""

Read = Callable[[Steps, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
"""``(steps, timesteps int64 [1, L], memory [1, m, d] or None) -> (predictions [1, L, A], memory after)``"""


class Acting:
    """Reads an episode step by step, each time the running segment alone, with the memory of the segments before.

    A call *continues* the call before if its timesteps end one step later, it holds at least two steps, and on all
    steps that both calls have it gives the same values, the action that was not known then aside. Every other call
    begins anew with what it is given, as one forward pass would read it; so does the first after :meth:`forget`.
    Predictions are those of one forward pass over all steps since the beginning. Several episodes in turn are
    therefore safe, if slow, where each call gives its whole history, and lose memory where it gives a part.

    Args:
        segment_length: K, steps per segment; segments start at timesteps that are multiples of it.
    """

    def __init__(self, segment_length: int) -> None:
        self.segment_length = segment_length
        self.forget()

    def forget(self) -> None:
        """The next call begins anew."""
        self.memory: Tensor | None = None
        self._steps: Steps = ()
        self._predictions: Tensor | None = None
        self._first = 0  # timestep of the first step that is kept
        self._start = 0  # timestep at which the running segment starts

    def __call__(self, read: Read, steps: Steps, timesteps: Tensor) -> Tensor:
        """The predictions ``[1, L, A]`` for ``steps`` at ``timesteps`` (int64 ``[1, L]``)."""
        numbers = timesteps[0].tolist()
        given, now = len(numbers), numbers[-1]
        if numbers != list(range(now - given + 1, now + 1)):
            self.forget()  # nothing can continue steps that are not successive
            return read(steps, timesteps, None)[0]
        before = self._continued(steps, now)
        if before is None:
            self.forget()
            self._first = self._start = numbers[0]
            self._steps = tuple(part.clone() for part in steps)
        start = max(self._start, now - now % self.segment_length)
        if start > self._start:
            # All actions of the segments that have ended are known by now.
            with torch.no_grad():
                ended, self.memory = self._read(read, self._start, start, self.memory)
            before = ended if before is None else before
            self._start = start
        running, _ = self._read(read, start, now + 1, self.memory)
        predictions = running if before is None else torch.cat([before[:, : start - self._first], running], 1)
        self._keep(predictions.detach(), max(given, now + 1 - start))
        return predictions[:, -given:]

    def _continued(self, steps: Steps, now: int) -> Tensor | None:
        """Takes in the newest of ``steps`` if they continue those kept: the predictions so far, else None."""
        if self._predictions is None:
            return None
        kept, overlap = self._predictions.shape[1], steps[0].shape[1] - 1
        if now != self._first + kept or not 0 < overlap <= kept:
            return None
        known = (*(overlap for _ in steps[:-1]), overlap - 1)
        for old, new, length in zip(self._steps, steps, known, strict=True):
            if old.device != new.device or old.dtype != new.dtype or old.shape[2:] != new.shape[2:]:
                return None
            if not torch.equal(old[:, kept - overlap :][:, :length], new[:, :length]):
                return None
        self._steps = tuple(
            torch.cat([old[:, : kept - overlap], new], 1) for old, new in zip(self._steps, steps, strict=True)
        )
        return self._predictions

    def _read(self, read: Read, start: int, end: int, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        steps = tuple(part[:, start - self._first : end - self._first] for part in self._steps)
        return read(steps, torch.arange(start, end, device=steps[0].device)[None], memory)

    def _keep(self, predictions: Tensor, length: int) -> None:
        """Keeps what the next call is compared with, and the running segment."""
        surplus = predictions.shape[1] - length
        self._predictions = predictions[:, surplus:]
        self._steps = tuple(part[:, surplus:] for part in self._steps)
        self._first += surplus
