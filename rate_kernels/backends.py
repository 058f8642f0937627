"""Which backend can run what here, which one runs, and why.

Every operation lists its backends in order of preference, each with a function that says why it cannot run
(``None`` means it can). ``backend=None`` takes the first that can and logs the choice once; a backend asked for by
name, by argument or by the environment variable ``RATE_BACKEND``, runs or raises. Nothing falls back silently.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

import torch

logger = logging.getLogger("rate_kernels")

BACKENDS = ("reference", "sdpa", "triton", "native")

Obstacle = Callable[[], str | None]
"""Why a backend cannot run a call (one line, with the way to get it), or None when it can."""

_announced: set[tuple[str, str]] = set()


class BackendUnavailable(RuntimeError):
    """A backend asked for by name cannot run here; the message says what is missing and how to get it."""


@torch.compiler.assume_constant_result
def default_backend() -> str | None:
    """The value of ``RATE_BACKEND``, or None when it is unset or empty.

    Raises:
        ValueError: if it names no backend.
    """
    name = os.environ.get("RATE_BACKEND") or None
    if name is not None and name not in BACKENDS:
        raise ValueError(f"RATE_BACKEND must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def choose(operation: str, candidates: Mapping[str, Obstacle], backend: str | None) -> str:
    """The backend that runs this call of ``operation``.

    Args:
        operation: name of the public function, for messages.
        candidates: obstacle per backend, in order of preference.
        backend: the caller's wish, or None.

    Raises:
        ValueError: if ``backend`` is not a backend of this operation.
        BackendUnavailable: if the named backend, or every backend, cannot run.
    """
    if backend is not None:
        if backend not in candidates:
            raise ValueError(f"backend of {operation} must be one of {', '.join(candidates)}, got {backend!r}")
        obstacle = candidates[backend]()
        if obstacle:
            raise BackendUnavailable(f"{operation} cannot run on backend {backend!r}: {obstacle}")
        return backend
    wished = default_backend()
    if wished is not None and wished in candidates:  # an operation without that backend uses its own order
        return choose(operation, candidates, wished)
    rejected = []
    for name, why_not in candidates.items():
        obstacle = why_not()
        if obstacle is None:
            _announce(operation, name, rejected)
            return name
        rejected.append(f"{name}: {obstacle}")
    raise BackendUnavailable(f"{operation} has no backend that can run: {'; '.join(rejected)}")


def _announce(operation: str, name: str, rejected: list[str]) -> None:
    if torch.compiler.is_compiling() or (operation, name) in _announced:
        return
    _announced.add((operation, name))
    logger.info("%s runs on %s%s", operation, name, f" ({'; '.join(rejected)})" if rejected else "")
