"""Which backend can run what here, which one runs, and why.

Every operation lists its backends in order of preference, each with its obstacle: why it cannot run this call, in one
line with the way to get it, or ``None`` when it can. ``backend=None`` takes the first that can and logs the choice
once; a backend asked for by name, by argument or by the environment variable ``RATE_BACKEND``, runs or raises.
Nothing falls back silently.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])

logger = logging.getLogger("rate_kernels")

BACKENDS = ("reference", "sdpa", "triton", "native")

_announced: set[tuple[str, str]] = set()


def constant_when_compiled(function: Function) -> Function:
    """``torch.compiler.assume_constant_result`` without its import of the compiler, which would double our own.

    The arguments must be plain numbers, strings or devices: the compiler may make other objects anew, without fields.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class BackendUnavailable(RuntimeError):
    """A backend asked for by name cannot run here; the message says what is missing and how to get it."""


@constant_when_compiled
def default_backend() -> str | None:
    """The value of ``RATE_BACKEND``, or None when it is unset or empty.

    Raises:
        ValueError: if it names no backend.
    """
    name = os.environ.get("RATE_BACKEND") or None
    if name is not None and name not in BACKENDS:
        raise ValueError(f"RATE_BACKEND must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def choose(operation: str, obstacles: Mapping[str, str | None], backend: str | None) -> str:
    """The backend that runs this call of ``operation``.

    Args:
        operation: name of the public function, for messages.
        obstacles: obstacle per backend, in order of preference.
        backend: the caller's wish, or None.

    Raises:
        ValueError: if ``backend`` is not a backend of this operation.
        BackendUnavailable: if the named backend, or every backend, cannot run.
    """
    if backend is not None:
        if backend not in obstacles:
            raise ValueError(f"backend of {operation} must be one of {', '.join(obstacles)}, got {backend!r}")
        if obstacles[backend]:
            raise BackendUnavailable(f"{operation} cannot run on backend {backend!r}: {obstacles[backend]}")
        return backend
    wished = default_backend()
    if wished is not None and wished in obstacles:  # an operation without that backend keeps its own order
        return choose(operation, obstacles, wished)
    for name, obstacle in obstacles.items():
        if obstacle is None:
            _announce(operation, name, obstacles)
            return name
    raise BackendUnavailable(f"{operation} has no backend that can run: {_reasons(obstacles)}")


def _announce(operation: str, name: str, obstacles: Mapping[str, str | None]) -> None:
    if torch.compiler.is_compiling() or (operation, name) in _announced:
        return
    _announced.add((operation, name))
    reasons = _reasons(obstacles)
    logger.info("%s runs on %s%s", operation, name, f" ({reasons})" if reasons else "")


def _reasons(obstacles: Mapping[str, str | None]) -> str:
    return "; ".join(f"{name}: {obstacle}" for name, obstacle in obstacles.items() if obstacle)
