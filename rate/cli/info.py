"""``rate info``."""

from __future__ import annotations

from collections.abc import Sequence

from rate_kernels import info


def main(arguments: Sequence[str]) -> int:
    """Prints versions, devices and the state of every backend; ``--json`` for machines."""
    return info.main(list(arguments))
