"""What a result says: our default against every baseline, round by round."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.results import Entry, Result

PUBLISHED = "published"


@dataclass(frozen=True)
class Against:
    """One baseline's time over ours: above 1 we are faster.

    Args:
        baseline: the baseline's name.
        ratio: median over the rounds.
        low, high: the least and the largest round.
    """

    baseline: str
    ratio: float
    low: float
    high: float

    def text(self) -> str:
        return f"{number(self.ratio)} ({number(self.low)} to {number(self.high)})"


@dataclass(frozen=True)
class Standing:
    """Our default in one comparison, against everything else that ran there."""

    entry: Entry
    against: tuple[Against, ...]

    @property
    def published(self) -> Against | None:
        """Against the published formulation as it is."""
        return next((a for a in self.against if a.baseline == PUBLISHED), None)

    @property
    def best(self) -> Against:
        """Against the fastest baseline: the smallest ratio."""
        return min(self.against, key=lambda a: a.ratio)


def standings(result: Result) -> list[Standing]:
    """One per comparison in which something of ours and a baseline were measured.

    Ours is the first variant listed that ran, which is what the package does by itself.
    """
    found = []
    for entries in result.comparisons().values():
        measured = [entry for entry in entries if entry.milliseconds]
        ours = next((entry for entry in measured if entry.ours), None)
        baselines = [entry for entry in measured if not entry.ours]
        if ours is not None and baselines:
            found.append(Standing(ours, tuple(_against(ours, other) for other in baselines)))
    return found


def _against(ours: Entry, other: Entry) -> Against:
    rounds = [b / a for a, b in zip(ours.milliseconds, other.milliseconds, strict=False)]
    return Against(other.variant, statistics.median(rounds), min(rounds), max(rounds))


def number(value: float) -> str:
    """Three figures at most, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def milliseconds(value: float) -> str:
    """Milliseconds, or microseconds where that reads better."""
    return f"{number(value)} ms" if value >= 0.1 else f"{number(1e3 * value)} µs"
