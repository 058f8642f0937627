"""New tokens of many environments, and their checks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rate_kernels.recurrence.engine.shape import RecurrenceShape


@dataclass(frozen=True)
class TokenInput:
    """At most one return-to-go, one observation and one action per environment, or rows that are embedded already.

    Args:
        returns: float32 ``[B]``, in units of the environment.
        observations: float32 ``[B, observation_size]``, int64 ``[B]`` where discrete, or embedded
            ``[B, d_model]`` in the parameters' dtype.
        actions: int64 ``[B]`` or float32 ``[B, action_size]``.
        embedded: ``[B, 3, d_model]`` in the parameters' dtype, in place of the others.

    What no environment's new tokens need may be None.
    """

    returns: Tensor | None = None
    observations: Tensor | None = None
    actions: Tensor | None = None
    embedded: Tensor | None = None


def check_tokens(
    tokens: TokenInput, shape: RecurrenceShape, batch: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Raises ValueError or TypeError where a tensor does not fit. Values are not read."""
    d = shape.d_model
    observed = {
        "embedded": ((batch, d), dtype),
        "vector": ((batch, shape.observation_size), torch.float32),
        "discrete": ((batch,), torch.int64),
    }[shape.observation]
    acted = ((batch,), torch.int64)
    if shape.action == "continuous":
        acted = ((batch, shape.action_size), torch.float32)  # type: ignore[assignment]
    for name, tensor, (expected, kind) in (
        ("returns", tokens.returns, ((batch,), torch.float32)),
        ("observations", tokens.observations, observed),
        ("actions", tokens.actions, acted),
        ("embedded", tokens.embedded, ((batch, 3, d), dtype)),
    ):
        if tensor is None:
            continue
        if tensor.shape != expected:
            raise ValueError(f"{name} must be {list(expected)}, got {list(tensor.shape)}")
        if tensor.dtype != kind or tensor.device != device:
            raise TypeError(f"{name} must be {kind} on {device}, got {tensor.dtype} on {tensor.device}")


KINDS = ("return", "observation", "action", "embedded token")


def refused(kind: int, env: int, what: str) -> ValueError:
    """The error for a new token of ``env`` that cannot be read."""
    return ValueError(f"{KINDS[kind]} of environment {env} {what}")


def check_counts(count: Tensor, ready: Tensor, held: Tensor, at_most: int) -> None:
    """Raises where an environment would read tokens it may not read.

    Args:
        count: int64 ``[B]``, new tokens.
        ready: bool ``[B]``, whether it was ever reset.
        held: int64 ``[B]``, tokens of its running segment.
        at_most: tokens a segment holds.
    """

    def first(wrong: Tensor) -> int | None:
        return int(wrong.nonzero()[0]) if wrong.any() else None

    if (env := first((count < 0) | (count > 3))) is not None:
        raise ValueError(f"count must be 0 to 3, got {int(count[env])} for environment {env}")
    if (env := first((count > 0) & ~ready)) is not None:
        raise RuntimeError(f"environment {env} must be reset before it acts")
    if (env := first(held + count > at_most)) is not None:
        raise ValueError(
            f"count must leave a segment at most {at_most} tokens, got {int(count[env])} for environment {env}, "
            f"whose segment has {int(held[env])}"
        )


def check_values(tokens: TokenInput, shape: RecurrenceShape, held: Tensor, count: Tensor) -> None:
    """Raises ValueError for the first environment with a new token that is missing, not finite or out of range.

    Args:
        held, count: int64 ``[B]``; new tokens are those with the numbers ``held .. held + count - 1``.
    """
    found: list[tuple[int, int, str]] = []

    def note(which: Tensor, kind: int, what: str) -> None:
        if which.any():
            found.append((int(which.nonzero()[0]), kind, what))

    if tokens.embedded is not None:
        new = torch.arange(3, device=count.device) < count[:, None]
        note((new & ~tokens.embedded.isfinite().all(-1)).any(-1), 3, "is not finite")
    else:
        sizes = (0, shape.observation_size, shape.action_size + 1)
        for kind, tensor in enumerate((tokens.returns, tokens.observations, tokens.actions)):
            has = (kind - held) % 3 < count
            if tensor is None:
                note(has, kind, "is missing")
            elif tensor.is_floating_point():
                note(has & ~tensor.reshape(len(count), -1).isfinite().all(1), kind, "is not finite")
            else:
                note(
                    has & ((tensor < 0) | (tensor >= sizes[kind])), kind, f"is not in 0 .. {sizes[kind] - 1}"
                )
    if found:
        env, kind, what = min(found)
        raise refused(kind, env, what)
