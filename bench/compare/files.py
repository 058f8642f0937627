"""Two result files, case by case.

The files come from different times, perhaps from differently busy machines. So what is compared is not our time but its
ratio to the baselines that were timed in the same rounds: the machine's speed cancels.
"""

from __future__ import annotations

import math
from pathlib import Path

from bench.compare.verdict import Verdict, judge
from bench.results import Entry, Result, load


def compare(old: Path, new: Path, min_effect: float) -> list[Verdict]:
    """Verdicts on every variant of ours that both files measured beside a common baseline.

    Raises:
        ValueError: if the files have nothing in common, or come from different devices.
    """
    theirs, ours = _by_comparison(load(old)), _by_comparison(load(new))
    devices = {str(one.machine["device"]) for side in (theirs, ours) for one in side.values()}
    if len(devices) > 1:
        raise ValueError(f"results come from different devices: {', '.join(sorted(devices))}")
    found = []
    for key in theirs.keys() & ours.keys():
        found += _verdicts(theirs[key], ours[key], min_effect)
    if not found:
        raise ValueError(f"{old} and {new} share no variant of ours with a baseline beside it")
    return sorted(found, key=lambda verdict: verdict.case)


class _Comparison:
    def __init__(self, machine: dict[str, object], entries: list[Entry]) -> None:
        self.machine = machine
        self.entries = {entry.variant: entry for entry in entries if entry.milliseconds}


def _by_comparison(results: list[Result]) -> dict[tuple[str, str, str], _Comparison]:
    return {
        key: _Comparison(result.machine, entries)
        for result in results
        for key, entries in result.comparisons().items()
    }


def _verdicts(old: _Comparison, new: _Comparison, min_effect: float) -> list[Verdict]:
    common = old.entries.keys() & new.entries.keys()
    baselines = sorted(name for name in common if not old.entries[name].ours)
    if not baselines:
        return []
    found = []
    for name in sorted(name for name in common if old.entries[name].ours):
        before, after = (_relative(side, name, baselines) for side in (old, new))
        entry = new.entries[name]
        case = f"{entry.size}, {entry.mode}, {name}"
        # Every new round over every old one: drawing rows and columns draws rounds of both files.
        ratios = [[value / other for other in before] for value in after]
        found.append(judge(case, ratios, min_effect))
    return found


def _relative(side: _Comparison, name: str, baselines: list[str]) -> list[float]:
    """Per round: our milliseconds over the geometric mean of the baselines'."""
    found = []
    for index, value in enumerate(side.entries[name].milliseconds):
        others = [side.entries[b].milliseconds for b in baselines]
        logs = [math.log(other[index]) for other in others if index < len(other)]
        if logs:
            found.append(value / math.exp(sum(logs) / len(logs)))
    return found
