"""From ratios to a verdict.

A comparison is a table of ratios ``new / old``, one row per pair of processes, one column per round. Rounds of a pair
share what a process start fixes (addresses, page sizes) and so are not independent: the bootstrap draws pairs first and
rounds within them. A version counts as slower when the whole confidence interval lies above 1 and the median by
at least the smallest effect that is worth a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_EFFECT = 0.08
CONFIDENCE = 0.99
_DRAWS = 4000


@dataclass(frozen=True)
class Verdict:
    """Of one case.

    Args:
        case: what was measured.
        ratio: median of new / old; above 1 the new one is slower.
        low, high: confidence interval of the ratio.
        word: ``"slower"``, ``"faster"``, ``"same"``, or ``"unclear"`` where the interval is too wide to say.
    """

    case: str
    ratio: float
    low: float
    high: float
    word: str

    def line(self) -> str:
        return f"{self.case:44s} {self.ratio:6.3f}  [{self.low:.3f}, {self.high:.3f}]  {self.word}"


def judge(
    case: str,
    ratios: Sequence[Sequence[float]],
    min_effect: float = MIN_EFFECT,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """The verdict on a table of ratios.

    Args:
        case: a name for it.
        ratios: per pair of processes (or run), its rounds; rows may differ in length.
        min_effect: smallest relative difference that counts.
        confidence: of the interval.

    Raises:
        ValueError: if there are no ratios, or one is not positive.
    """
    rows = [np.log(np.asarray(row, dtype=np.float64)) for row in ratios if len(row)]
    if not rows:
        raise ValueError(f"no ratios of {case!r}")
    if not all(np.isfinite(row).all() for row in rows):
        raise ValueError(f"ratios of {case!r} must be positive numbers")
    rng = np.random.default_rng(0)
    # Medians of rows drawn anew, many per row; then, many times, rows drawn and a median of each.
    medians = np.stack(
        [np.median(row[rng.integers(row.size, size=(_DRAWS, row.size))], axis=1) for row in rows]
    )
    pairs = rng.integers(len(rows), size=(_DRAWS, len(rows)))
    drawn = np.median(medians[pairs, rng.integers(_DRAWS, size=pairs.shape)], axis=1)
    tail = (1 - confidence) / 2
    low, high = np.exp(np.quantile(drawn, [tail, 1 - tail]))
    ratio = float(np.exp(np.median([np.median(row) for row in rows])))
    return Verdict(case, ratio, float(low), float(high), _word(ratio, low, high, min_effect))


def _word(ratio: float, low: float, high: float, min_effect: float) -> str:
    """A difference must be larger than the smallest effect and than the noise; sameness must be shown too."""
    above, below = 1 + min_effect, 1 / (1 + min_effect)
    if ratio >= above and low > 1:
        return "slower"
    if ratio <= below and high < 1:
        return "faster"
    if ratio >= above or ratio <= below or high > above**2 or low < below**2:
        return "unclear"
    return "same"
