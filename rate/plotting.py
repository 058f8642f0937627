"""Pictures of runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rate import runs
from rate.persistence import write_atomically

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # distinguishable to all eyes


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a run's CSV file.

    Raises:
        FileNotFoundError: if it is missing, saying which command makes it.
    """
    if not path.is_file():
        maker = "rate eval" if path.name == "evaluation.csv" else "rate train"
        raise FileNotFoundError(f"no {path}: {maker} writes it")
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def draw_success(folders: Sequence[Path], picture: Path) -> None:
    """Success against corridor length, one line per run; the trained lengths shaded."""
    figure, axes = new_figure()
    for folder, colour in zip(folders, colours(len(folders)), strict=True):
        rows = read_csv(folder / "evaluation.csv")
        x, y = [float(r["corridor"]) for r in rows], [float(r["success"]) for r in rows]
        axes.plot(x, y, "o-", color=colour, label=folder.name, markersize=5)
    trained = [runs.load_options(f).corridor for f in folders if (f / "run.json").is_file()]
    lengths = [length for corridor in trained for length in corridor]
    if lengths:
        axes.axvspan(min(lengths), max(lengths), color="0.9", label="trained lengths", zorder=0)
    axes.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    axes.annotate(
        "chance", (1, 0.5), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.5"
    )
    axes.set(xscale="log", ylim=(0.0, 1.05), xlabel="corridor length (steps)", ylabel="success rate")
    axes.set_title("T-Maze: the hint is seen once, at the first step")
    axes.legend(loc="lower left", frameon=False)
    save_figure(figure, picture)


def draw_curves(folders: Sequence[Path], picture: Path) -> None:
    """Loss and accuracy against updates, one line per run."""
    figure, axes = new_figure(columns=2)
    for folder, colour in zip(folders, colours(len(folders)), strict=True):
        rows = read_csv(folder / "metrics.csv")
        updates = [int(r["update"]) for r in rows]
        for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
            axis.plot(updates, [float(r[name]) for r in rows], color=colour, label=folder.name, linewidth=1)
    axes[0].set(xlabel="update", ylabel="loss", yscale="log")
    axes[1].set(xlabel="update", ylabel="share of actions right", ylim=(0, 1.02))
    axes[1].legend(loc="lower right", frameon=False)
    save_figure(figure, picture)


def colours(count: int) -> list[str]:
    """As many colours; from the seventh on they begin again."""
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def new_figure(columns: int = 1):  # type: ignore[no-untyped-def]
    """A figure and its axes, one or a row of them."""
    from matplotlib.figure import Figure  # the object interface: no backend, no display

    figure = Figure(figsize=(6.4 * columns, 4.0), layout="constrained")
    axes = figure.subplots(1, columns)
    for axis in axes if columns > 1 else [axes]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="0.92")
    return figure, axes


def save_figure(figure, picture: Path) -> None:  # type: ignore[no-untyped-def]
    """Writes a figure as a PNG."""
    write_atomically(picture, lambda beside: figure.savefig(beside, dpi=140, format="png"))
