"""From returns to the number a task is known by, its confidence interval, and what the paper reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Score:
    """How one episode's score is made.

    Args:
        kind: ``"success"`` (1 or 0, as the environment says), ``"return"``, or ``"normalised"``: 0 for the return
            ``low``, 100 for ``high``.
        low: the return that scores 0.
        high: the return that scores 100.
        name: what the number is called where the kind does not say enough.
    """

    kind: Literal["success", "return", "normalised"] = "return"
    low: float = 0.0
    high: float = 1.0
    name: str = ""

    def of(self, returns: np.ndarray, successes: np.ndarray | None = None) -> np.ndarray:
        """Scores float64 ``[N]`` of N episodes.

        Raises:
            ValueError: if the score is the success rate and the environment did not report success.
        """
        if self.kind == "success":
            if successes is None:
                raise ValueError('successes must be given: the environment did not report info["success"]')
            return np.asarray(successes, np.float64)
        returns = np.asarray(returns, np.float64)
        return 100 * (returns - self.low) / (self.high - self.low) if self.kind == "normalised" else returns

    @property
    def label(self) -> str:
        """What the number is called in a table."""
        return self.name or {"success": "success", "return": "return", "normalised": "score"}[self.kind]


@dataclass(frozen=True)
class Figure:
    """A figure of the paper.

    Args:
        model: whose, in the paper's words.
        value: the mean.
        spread: standard error over runs where the table prints one, else None.
        source: table or figure, and where it is not the paper's own, that.
        at: value of the task's axis it was measured at, None if the task has none.
        part: the part of the episodes it is about, as ``info["<part>_return"]`` names it; empty for all of them.
    """

    model: str
    value: float
    spread: float | None
    source: str
    at: float | None = None
    part: str = ""

    def __str__(self) -> str:
        return f"{self.value:g}" if self.spread is None else f"{self.value:g} ± {self.spread:g}"


def mean_interval(scores: np.ndarray, resamples: int = 10_000) -> tuple[float, float, float]:
    """Mean of ``scores`` and a 95 % confidence interval: ``(mean, low, high)``.

    Wilson's interval where all scores are 0 or 1, which stays honest at 0 % and 100 %; else the percentile bootstrap
    with a fixed seed. The interval is about episodes of one model, not about training runs.

    Raises:
        ValueError: for no scores.
    """
    scores = np.asarray(scores, np.float64).ravel()
    if not len(scores):
        raise ValueError("scores must hold at least one episode, got 0")
    mean, count = float(scores.mean()), len(scores)
    if np.isin(scores, (0.0, 1.0)).all():
        z = 1.959964
        center = (mean + z * z / (2 * count)) / (1 + z * z / count)
        half = z / (1 + z * z / count) * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count))
        return mean, max(0.0, center - half), min(1.0, center + half)
    rng = np.random.default_rng(0)
    rows = max(1, (1 << 20) // count)  # drawn at once: some megabytes
    parts = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    means = np.concatenate([scores[rng.integers(count, size=(part, count))].mean(1) for part in parts])
    low, high = np.percentile(means, (2.5, 97.5))
    return mean, float(low), float(high)
