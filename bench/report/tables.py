"""Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.report.ratios import Standing, milliseconds, number, standings
from bench.results import Entry, Result

_GROUP_NAMES = {
    "attention": "attention",
    "gate": "gate",
    "recurrence": "",
    "training-step": "training step",
    "acting": "acting",
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def wins_and_losses(results: dict[str, Result], short: bool) -> str:
    """Our default against the published formulation and against the fastest of all baselines.

    Args:
        results: newest result per group, of one device.
        short: the rows that the README shows: what a user runs, not every size.
    """
    rows = []
    for what in _GROUP_NAMES:
        if what not in results:
            continue
        for standing in standings(results[what]):
            if not short or _in_short(standing.entry):
                rows.append(_row(standing))
    if "memory-replay" in results:
        rows += _replay_rows(results["memory-replay"])
    header = ("what", "ours", "against published", "against the fastest baseline", "which that is")
    return table(header, rows)


def _replay_rows(result: Result) -> list[list[str]]:
    """Memory replay against keeping all activations, at the most segments that both were measured at."""
    entries = {(e.parameters["segments"], "replay" in e.variant): e for e in result.entries if e.milliseconds}
    both = [n for n, replay in entries if replay and (n, False) in entries]
    if not both:
        return []
    ours, kept = entries[max(both), True], entries[max(both), False]
    rounds = [b / a for a, b in zip(ours.milliseconds, kept.milliseconds, strict=False)]
    what, other = f"training batch of {max(both)} segments, memory replay", "all activations kept"
    rows = [
        [f"{what}: time", milliseconds(ours.median or 0.0), "-", _verdict(statistics.median(rounds)), other]
    ]
    if ours.peak_bytes and kept.peak_bytes:
        peak = f"{number(ours.peak_bytes / 2**20)} MiB"
        rows.append([f"{what}: peak memory", peak, "-", _verdict(kept.peak_bytes / ours.peak_bytes), other])
    return rows


def _in_short(entry: Entry) -> bool:
    if entry.group == "attention":
        return entry.parameters.get("kind") == "real" and entry.mode != "forward"
    if entry.group in ("gate", "recurrence"):
        return "acting" not in entry.size and entry.mode != "forward"
    return entry.group != "acting" or "full context" in entry.mode


def _row(standing: Standing) -> list[str]:
    entry, best, published = standing.entry, standing.best, standing.published
    name = _GROUP_NAMES[entry.group]
    what = f"{name}: {entry.size}, {entry.mode}" if name else f"{entry.mode}: {entry.size}"
    return [
        what.removesuffix(", float32"),
        milliseconds(entry.median or 0.0),
        _verdict(published.ratio) if published else "-",
        _verdict(best.ratio),
        best.baseline,
    ]


def _verdict(ratio: float) -> str:
    """Losses stand out."""
    return f"**{number(ratio)} (loss)**" if ratio < 1 else number(ratio)


def full(entries: list[Entry]) -> str:
    """All variants of one comparison: median, extremes, ratio to ours, memory; then what was not measured, and why."""
    measured = sorted((e for e in entries if e.milliseconds), key=lambda e: e.median or 0.0)
    ours = next((e for e in entries if e.ours and e.milliseconds), None)
    memory = any(e.peak_bytes is not None for e in measured)
    header = ["variant", "median", "least to most", "times ours"] + (["peak"] if memory else [])
    rows = []
    for entry in measured:
        low, high = min(entry.milliseconds), max(entry.milliseconds)
        ratio = "-" if ours is None or ours.median is None else number((entry.median or 0.0) / ours.median)
        row = [
            f"**{entry.variant}**" if entry.ours else entry.variant,
            milliseconds(entry.median or 0.0),
            f"{milliseconds(low)} to {milliseconds(high)}",
            ratio,
        ]
        if memory:
            row.append("-" if entry.peak_bytes is None else f"{entry.peak_bytes / 2**20:.1f} MiB")
        rows.append(row)
    text = table(header, rows) if rows else ""
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        if not entry.milliseconds:
            reasons.setdefault(entry.reason or "no reason was recorded", []).append(entry.variant)
    for reason, names in reasons.items():
        text += f"\nNot measured: {'; '.join(names)} ({reason}).\n"
    return text
