"""A data set and its episodes as text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rate.data.episodes import SpaceSpec
from rate.data.sources import LazyEpisodes
from rate.data.statistics import Moments
from rate.data.summary import Summary

_BLOCKS, _PLAIN = " ▁▂▃▄▅▆▇█", " .:-=+*#%"
_LONGEST = 20
"""Rows of a table; what is beyond them is counted."""
_BINS = 24


def describe(source: LazyEpisodes, summary: Summary) -> list[str]:
    """Lines on the whole set."""
    files = source.files()
    stored = sum(file.stat().st_size for file in files)
    steps = int(source.lengths.sum())
    lines = [
        str(source.path),
        _row("layout", f"{source.layout}, {len(files):,} file{'s' * (len(files) != 1)}, {_bytes(stored)}"),
        _row("observations", _space(source.observation_space)),
        _row("actions", _space(source.action_space)),
        _row("episodes", f"{len(source):,}"),
        _row("steps", f"{steps:,}, {_bytes(steps * _step_bytes(source))} when decoded"),
    ]
    if source.remark:
        lines.append(_row("", source.remark))
    lines += [
        _row("length", _spread(summary.lengths)),
        _row("return", _spread(summary.returns)),
    ]
    if summary.action_counts is not None:
        lines += _shares("action", summary.action_counts, source.action_space.start)
    if summary.action_moments is not None and summary.action_bins is not None:
        low, high = (_number(bound) for bound in summary.action_bounds)
        bars = [f"  {low} {bar(row)} {high}" for row in summary.action_bins]
        lines += _features("action", summary.action_moments, bars)
    if summary.observation_counts is not None:
        lines += _shares("observation", summary.observation_counts, source.observation_space.start)
    if summary.observation_moments is not None:
        lines += _features("observation", summary.observation_moments)
    return lines


def describe_episode(source: LazyEpisodes, index: int, rows: int = 5) -> list[str]:
    """Lines on an episode: its first and last steps."""
    episode = source[index]
    length = episode.length
    lines = [
        f"episode {index % len(source)}: {length:,} steps, return {_number(float(episode.rewards.sum(dtype=float)))}, "
        f"in {source.file(index)}"
    ]
    table = [("step", "observation", "action", "reward", "return-to-go")]
    last = max(rows, length - rows)
    for step in [*range(min(rows, length)), *range(last, length)]:
        if step == last and length > 2 * rows:
            table.append(("...", "", "", "", ""))
        table.append(
            (
                str(step),
                _values(episode.observations[step]),
                _values(episode.actions[step]),
                _number(float(episode.rewards[step])),
                _number(float(episode.returns_to_go[step])),
            )
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[1] = row[1].ljust(widths[1])
        lines.append("  " + "  ".join(cells))
    return lines


def bar(counts: Sequence[int] | np.ndarray) -> str:
    """A character per count, as high as it is large; 0 alone is blank."""
    shades = _BLOCKS if _can_print(_BLOCKS) else _PLAIN
    counts = np.asarray(counts, float)
    heights = np.ceil(counts / max(counts.max(initial=0), 1) * (len(shades) - 1)).astype(int)
    return "".join(shades[height] for height in heights)


def _can_print(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _row(name: str, text: str) -> str:
    return f"{name:<16}{text}"


def _spread(values: np.ndarray) -> str:
    low, high = float(values.min()), float(values.max())
    text = (
        f"min {_number(low)}  median {_number(float(np.median(values)))}  max {_number(high)}  "
        f"mean {_number(float(values.mean()))}"
    )
    return f"{text}  |{bar(np.histogram(values, _BINS, (low, high))[0])}|" if high > low else text


def _shares(name: str, counts: np.ndarray, start: int) -> list[str]:
    """A row per value, the most frequent ones where there are too many."""
    shown = np.sort(np.argsort(-counts, kind="stable")[:_LONGEST])
    total = max(int(counts.sum()), 1)
    full = (_BLOCKS if _can_print(_BLOCKS) else _PLAIN)[-1]
    lines = [
        _row(
            f"{name} {start + value}",
            f"{100 * counts[value] / total:5.1f} %  {full * round(40 * counts[value] / total)}",
        )
        for value in shown.tolist()
    ]
    if len(counts) > _LONGEST:
        rest = int(counts.sum() - counts[shown].sum())
        lines.append(_row("", f"{100 * rest / total:5.1f} %  {len(counts) - _LONGEST} rarer ones"))
    return lines


def _features(name: str, moments: Moments, bars: Sequence[str] = ()) -> list[str]:
    """A row per number of a vector."""
    lines = []
    for index in range(min(len(moments.mean), _LONGEST)):
        text = "  ".join(
            f"{label} {_number(float(values[index])):>10}"
            for label, values in (
                ("mean", moments.mean),
                ("std", moments.deviation),
                ("min", moments.low),
                ("max", moments.high),
            )
        )
        lines.append(_row(f"{name} {index}", text + (bars[index] if bars else "")))
    if len(moments.mean) > _LONGEST:
        lines.append(_row("", f"and {len(moments.mean) - _LONGEST} more"))
    return lines


def _space(space: SpaceSpec) -> str:
    if space.kind == "discrete":
        return f"discrete, {space.start} to {space.start + (space.n or 0) - 1}"
    shape = ", ".join(map(str, space.shape))
    if space.kind == "image":
        return f"images [{shape}] uint8" + (", channels last in the files" if space.channels_last else "")
    bounds = (
        "" if space.low is None or space.high is None else f", {_number(space.low)} to {_number(space.high)}"
    )
    return f"{'vectors' if space.kind == 'vector' else 'continuous'} [{shape}]{bounds}"


def _step_bytes(source: LazyEpisodes) -> int:
    spaces = (source.observation_space, source.action_space)
    return sum(int(np.prod(space.shape, dtype=int)) * space.dtype.itemsize for space in spaces) + 4


def _bytes(count: int) -> str:
    size, units = float(count), ["bytes", "KB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{count:,} bytes" if units[0] == "bytes" else f"{size:.1f} {units[0]}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def _values(value: np.ndarray) -> str:
    """A vector's first numbers, or an image in brief."""
    value = np.asarray(value)
    if value.ndim == 3:
        return f"{value.min()} to {value.max()}, mean {value.mean():.1f}"
    if value.ndim == 0:
        return str(value)
    shown = " ".join(f"{float(number):.3g}" for number in value[:6])
    return shown + (f" ... ({len(value)})" if len(value) > 6 else "")


def default_picture(source: LazyEpisodes, index: int) -> Path:
    """Where an episode's picture goes if no place is named: the current folder, by the names of set and episode."""
    return Path(f"{source.path.resolve().stem or 'episode'}-episode-{index % len(source)}.png")
