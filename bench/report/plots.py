"""Pictures: speed-ups, time and memory against length, roofline, acting latency, memory replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.report.ratios import Against, standings
from bench.results import Entry, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS = ("#0072b2", "#56b4e9", "#003d66")
_OTHERS = ("#d55e00", "#e69f00", "#009e73", "#cc79a7", "#8c6d31", "#999999", "#c9a800", "#7f4f9e")
_Results = dict[str, Result]


def draw(results: _Results, folder: Path, prefix: str) -> dict[str, Path]:
    """Draws what the results allow; returns the picture of every kind drawn."""
    kinds: dict[str, Callable[[_Results, Figure], bool]] = {
        "speedup": _speedup,
        "length": _length,
        "roofline": _roofline,
        "acting": _acting,
        "replay": _replay,
        "tmaze": _tmaze,
    }
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for kind, plot in kinds.items():
        figure = Figure(layout="constrained")
        if plot(results, figure):
            drawn[kind] = folder / f"{prefix}-{kind}.png"
            figure.savefig(drawn[kind], dpi=130, metadata={"Software": None})
    return drawn


def _device(result: Result) -> str:
    if result.on_gpu:
        return f"{result.machine['device']}, {result.settings['dtype']}"
    return f"CPU ({result.machine['cpu']}), {_threads(result)}, {result.settings['dtype']}"


def _threads(result: Result) -> str:
    threads = result.machine["threads"]
    return f"{threads} thread" + ("s" if threads > 1 else "")


def _log_labels(axes: Axes) -> None:
    """Plain numbers along y: every 1, 2, 5 where there is room for them."""
    low, high = axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def _lines(entries: list[Entry]) -> dict[str, tuple[list[Entry], str, str]]:
    """Per variant its entries, a colour and a line style; ours in blues."""
    names = list(dict.fromkeys(e.variant for e in entries if e.milliseconds))
    found, ours, others = {}, 0, 0
    for name in names:
        own = [e for e in entries if e.variant == name and e.milliseconds]
        if own[0].ours:
            colour, ours = _OURS[ours % len(_OURS)], ours + 1
        else:
            colour, others = _OTHERS[others % len(_OTHERS)], others + 1
        found[name] = (own, colour, "-" if own[0].ours else "--")
    return found


# --- Speed-ups ------------------------------------------------------------------------------------


def _speedup(results: _Results, figure: Figure) -> bool:
    bars = _bars(results)
    if not bars:
        return False
    figure.set_size_inches(9.5, 1.3 + 0.36 * len(bars))
    axes = figure.subplots()
    for index, (_, published, best) in enumerate(bars):
        y = len(bars) - index
        one = published.baseline == best.baseline
        for offset, against, colour in ((0.19, published, _OURS[0]), (-0.19, best, _OTHERS[1]))[
            : 1 if one else 2
        ]:
            axes.barh(y + (0 if one else offset), against.ratio - 1, 0.36, left=1, color=colour)
            axes.plot(
                [against.low, against.high], [y + (0 if one else offset)] * 2, color="0.25", linewidth=1
            )
    axes.set_xscale("log")
    lows, highs = ([pick(p, b) for _, p, b in bars] for pick in (_least, _most))
    ticks = [t for t in _TICKS if 0.8 * min(*lows, 1) <= t <= 1.25 * max(highs)]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_yticks([len(bars) - i for i in range(len(bars))], [label for label, _, _ in bars], fontsize=8)
    axes.set_ylim(0.4, len(bars) + 0.6)
    axes.axvline(1, color="0.2", linewidth=1)
    _plain(axes)
    axes.grid(False, axis="y")
    named = (
        (_OURS[0], "against the published formulation"),
        (_OTHERS[1], "against the fastest baseline, where another"),
    )
    handles = [axes.barh(0, 0, color=colour, label=name) for colour, name in named]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    axes.set_xlabel("times as fast; left of 1 is a loss; lines: all rounds")
    figure.suptitle(f"Speed-ups: {_device(next(iter(results.values())))}", fontsize=10)
    return True


_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def _bars(results: _Results) -> list[tuple[str, Against, Against]]:
    """What a user runs: whole steps, attention and gate forward + backward at published shapes, acting."""
    bars = []
    for what in ("training-step", "attention", "gate", "recurrence", "acting"):
        for standing in standings(results[what]) if what in results else []:
            entry = standing.entry
            if standing.published is None or entry.mode == "forward":
                continue
            if entry.parameters.get("kind", "real") != "real" or entry.size.startswith("acting"):
                continue
            name = {"training-step": "training step", "recurrence": entry.mode}.get(what, what)
            label = f"{name}: {entry.size}"
            if what == "acting":
                label = f"acting, {entry.mode}: {entry.parameters['environments']} env."
            bars.append((label, standing.published, standing.best))
    return bars


def _least(*against: Against) -> float:
    return min(a.low for a in against)


def _most(*against: Against) -> float:
    return max(a.high for a in against)


# --- Time and memory against length ---------------------------------------------------------------


def _length(results: _Results, figure: Figure) -> bool:
    if "attention" not in results:
        return False
    entries = [
        e
        for e in results["attention"].entries
        if e.parameters.get("kind") == "length" and e.mode != "forward" and not e.variant.endswith("compiled")
    ]
    lines = _lines(entries)
    if not lines:
        return False
    figure.set_size_inches(9.5, 4.3)
    left, right = figure.subplots(1, 2)
    for name, (own, colour, style) in lines.items():
        x = [e.parameters["tokens"] for e in own]
        per_token = [1e3 * (e.median or 0.0) / (e.parameters["tokens"] * e.parameters["batch"]) for e in own]
        left.plot(x, per_token, style, marker="o", markersize=4, color=colour, label=name)
        peaks = [(e.parameters["tokens"], e.peak_bytes / 2**20) for e in own if e.peak_bytes]
        right.plot(
            *zip(*peaks, strict=True), style, marker="o", markersize=4, color=colour
        ) if peaks else None
    ticks = sorted({e.parameters["tokens"] for e in entries})
    for axes, label in ((left, "µs per token, forward + backward"), (right, "MiB at the peak")):
        axes.set(
            xscale="log", yscale="log", xlabel="segment tokens (same number of tokens in all)", ylabel=label
        )
        axes.set_xticks(ticks, [str(t) for t in ticks], fontsize=8)
        axes.minorticks_off()
        _log_labels(axes)
        _plain(axes)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"Attention against length: {_device(results['attention'])}", fontsize=10)
    return True


# --- Roofline -------------------------------------------------------------------------------------


def least_work(entry: Entry, itemsize: int) -> tuple[float, float]:
    """Fewest operations and bytes of an attention call.

    Per visible pair, content, position and weighted sum are 6 d_head operations; the backward pass makes the scores
    again (4) and five products more (10). Bytes: every input read once and every output written once per pass.
    """
    p = entry.parameters
    pairs, d = p["visible_pairs"], p["d_head"]
    queries = p["tokens"] + 2 * p["memory"]
    keys = queries + p["cache"]
    rows = p["batch"] * p["heads"] * d * itemsize
    forward = rows * (2 * queries + 2 * keys)
    if entry.mode == "forward":
        return 6.0 * d * pairs, float(forward)
    return 20.0 * d * pairs, float(forward + rows * (4 * queries + 4 * keys))


def _roofline(results: _Results, figure: Figure) -> bool:
    if "attention" not in results or "ceilings" not in results:
        return False
    bandwidth, rate = ceilings(results["ceilings"])
    itemsize = {"float32": 4, "bfloat16": 2, "float16": 2}[results["attention"].settings["dtype"]]
    ours: dict[tuple[str, str], Entry] = {}
    for entry in results["attention"].entries:  # the first of ours that ran in a comparison
        if entry.ours and entry.milliseconds and entry.mode != "forward":
            ours.setdefault((entry.size, entry.mode), entry)
    if not ours:
        return False
    work = {key: least_work(entry, itemsize) for key, entry in ours.items()}
    for key, (flops, moved) in work.items():
        reached = 1e3 * flops / (ours[key].median or 1.0)
        if reached > 1.1 * min(rate, bandwidth * flops / moved):
            return False  # the ceilings were measured on a busier machine than attention was
    figure.set_size_inches(8.5, 4.6)
    axes = figure.subplots()
    intensities = []
    markers = {"real": ("o", "#0072b2"), "length": ("s", "#d55e00"), "batch": ("^", "#009e73")}
    for key, entry in ours.items():
        flops, moved = work[key]
        intensity, achieved = flops / moved, flops / (entry.median or 1.0) * 1e3
        intensities.append(intensity)
        marker, colour = markers[entry.parameters["kind"]]
        axes.plot(intensity, achieved / 1e9, marker, color=colour, markersize=6)
    edge = rate / bandwidth
    x = [min(*intensities, edge) / 3, edge, max(*intensities, edge) * 3]
    axes.plot(x, [min(rate, bandwidth * i) / 1e9 for i in x], color="0.2", linewidth=1.5)
    axes.text(
        x[2], rate / 1e9, f"matrix product: {rate / 1e9:.0f} GFLOP/s ", ha="right", va="bottom", fontsize=8
    )
    axes.text(
        x[0] * 1.1, bandwidth * x[0] * 1.1 / 1e9, f"  copy: {bandwidth / 1e9:.1f} GB/s", va="top", fontsize=8
    )
    present = {entry.parameters["kind"] for entry in ours.values()}
    for kind, (marker, colour) in ((kind, markers[kind]) for kind in markers if kind in present):
        axes.plot(
            [],
            [],
            marker,
            color=colour,
            label={"real": "published shapes", "length": "growing length"}.get(kind, "growing batch"),
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="least operations per least byte",
        ylabel="GFLOP/s, forward + backward",
    )
    _log_labels(axes)
    _plain(axes)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    axes.set_title(
        f"Our attention under both measured ceilings: {_device(results['attention'])}", fontsize=10
    )
    return True


def ceilings(result: Result) -> tuple[float, float]:
    """Bytes a second of the copy and operations a second of the product, of their fastest rounds."""
    found = {}
    for entry in result.entries:
        for quantity in ("bytes", "flops"):
            if quantity in entry.parameters and entry.milliseconds:
                found[quantity] = 1e3 * entry.parameters[quantity] / min(entry.milliseconds)
    return found["bytes"], found["flops"]


# --- Acting and memory replay ---------------------------------------------------------------------


def _acting(results: _Results, figure: Figure) -> bool:
    if "acting" not in results:
        return False
    figure.set_size_inches(9.5, 4.3)
    modes = list(dict.fromkeys(e.mode for e in results["acting"].entries))
    all_lines = _lines(results["acting"].entries)
    for axes, mode in zip(figure.subplots(1, len(modes), sharey=True, squeeze=False)[0], modes, strict=True):
        for name, (own, colour, style) in all_lines.items():
            points = [(e.parameters["environments"], e.median) for e in own if e.mode == mode]
            if points:
                label = name if mode == modes[0] else None
                axes.plot(
                    *zip(*points, strict=True), style, marker="o", markersize=4, color=colour, label=label
                )
        ticks = sorted({e.parameters["environments"] for e in results["acting"].entries})
        axes.set(xscale="log", yscale="log", xlabel="environments", title=mode)
        axes.title.set_fontsize(10)
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        _log_labels(axes)
        _plain(axes)
    figure.axes[0].set_ylabel("ms per step of all environments")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"One environment step: {_device(results['acting'])}", fontsize=10)
    return bool(all_lines)


def _replay(results: _Results, figure: Figure) -> bool:
    if "memory-replay" not in results:
        return False
    lines = _lines(results["memory-replay"].entries)
    figure.set_size_inches(9.5, 4.0)
    left, right = figure.subplots(1, 2)
    for name, (own, _, _) in lines.items():
        colour = "#0072b2" if "replay" in name else "#d55e00"
        x = [e.parameters["segments"] for e in own]
        left.plot(x, [(e.peak_bytes or 0) / 2**20 for e in own], "o-", markersize=4, color=colour, label=name)
        right.plot(x, [1e-3 * (e.median or 0.0) for e in own], "o-", markersize=4, color=colour)
    ticks = sorted({e.parameters["segments"] for e in results["memory-replay"].entries})
    for axes, label in ((left, "MiB at the peak"), (right, "seconds, forward + backward")):
        axes.set(xscale="log", yscale="log", xlabel="segments in the batch", ylabel=label)
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        _log_labels(axes)
        _plain(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(f"Training through all segments: {_device(results['memory-replay'])}", fontsize=10)
    return bool(lines)


def _tmaze(results: _Results, figure: Figure) -> bool:
    """One line per seed, one colour per way of training."""
    if "tmaze" not in results:
        return False
    figure.set_size_inches(7.0, 3.8)
    axes, labels = figure.subplots(), set()
    for entry in results["tmaze"].entries:
        found = entry.parameters["found"].get(entry.variant)
        if not found:
            continue
        colour = _OURS[0] if entry.ours else _OTHERS[0]
        label = None if entry.variant in labels else entry.variant
        labels.add(entry.variant)
        corridors = [int(corridor) for corridor in found["success"]]
        rates = list(found["success"].values())
        axes.plot(corridors, rates, "o-", color=colour, markersize=4, alpha=0.8, label=label)
    if not labels:
        return False
    axes.axvspan(1, 24, color="0.92", zorder=0, label="trained lengths")
    axes.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    axes.set(xscale="log", ylim=(0.35, 1.04), xlabel="corridor length (steps)", ylabel="success rate")
    axes.set_title("T-Maze: the hint is seen once, at the first step", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center right", bbox_to_anchor=(1.0, 0.62), frameon=False)
    return True
