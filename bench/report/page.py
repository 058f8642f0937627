"""``docs/benchmarks.md``, its pictures, and the table in the README."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bench import groups
from bench.report import plots, tables
from bench.results import RESULTS, Result, load, newest

ROOT = Path(__file__).resolve().parents[2]
_BEGIN, _END = "<!-- benchmarks: begin, written by python -m bench report -->", "<!-- benchmarks: end -->"
_CAPTIONS = {
    "speedup": "Speed-ups over the published formulation and over the fastest baseline",
    "length": "Time and memory of attention against length",
    "roofline": "Attention under the measured ceilings",
    "acting": "Time of an environment step against the number of environments",
    "tmaze": "Success against corridor length, with gradients through memory and as published",
    "replay": "Memory and seconds of a training batch against its segments",
}
_INTRODUCTION = """# Benchmarks

Written by `python -m bench report` from the newest results in `bench/results`; `python -m bench run --save` measures
again. How to read it:

- every ratio is of two things timed in turn in one run; "against" is the other's time over ours, so above 1 we are
  faster, and a loss is marked as one;
- every answer was checked against float64 before it was timed; a wrong one is not timed;
- figures are medians, "least to most" is over the rounds; memory is the peak above what was held before the call (on a
  CPU the process's resident memory, which does not see what is served from memory already held);
- *published* is our own writing of the published formulation: whole score matrices, the relative shift, copies to the
  host. *SDPA* is PyTorch's `scaled_dot_product_attention`, *FlexAttention* its `flex_attention`; *bias* gives them the
  position scores as a materialised matrix, *separable* our longer queries and keys ([design.md](design.md));
  *compiled* is under `torch.compile`.
"""


def add(path: Path) -> list[Path]:
    """Keeps the results in a file, such as one of ``bench/device/run.sh``, under ``bench/results``."""
    return [result.write(result.folder()) for result in load(path)]


def write(
    results: Path = RESULTS, docs: Path = ROOT / "docs", readme: Path = ROOT / "README.md"
) -> list[Path]:
    """Writes the page, its pictures and the README's table; returns the files written.

    Raises:
        FileNotFoundError: if there are no results.
        ValueError: if a result or the README is not as expected.
    """
    devices = {folder.name: newest(folder) for folder in sorted(results.glob("*")) if folder.is_dir()}
    devices = {name: found for name, found in devices.items() if found}
    if not devices:
        raise FileNotFoundError(f"no results under {results}: run python -m bench run --save first")
    text, written = _INTRODUCTION, []
    if not any(result.on_gpu for found in devices.values() for result in found.values()):
        text += (
            "\n**No GPU has run this code: everything about GPUs is unmeasured, and so is their roofline.**\n"
        )
    order = sorted(devices, key=lambda name: name == "cpu")  # GPUs first
    for name in order:
        pictures = plots.draw(devices[name], docs / "images", f"bench-{name}")
        text += _device_section(name, devices[name], pictures, docs)
        written += pictures.values()
    page = docs / "benchmarks.md"
    page.write_text(text)
    _update_readme(readme, devices[order[0]])
    return [page, readme, *written]


def _device_section(name: str, results: dict[str, Result], pictures: dict[str, Path], docs: Path) -> str:
    title = "CPU" if name == "cpu" else next(iter(results.values())).machine["device"]
    text = f"\n## {title}\n\n{_machines(results)}\n### Wins and losses\n\n"
    text += tables.wins_and_losses(results, short=False)
    for kind, path in pictures.items():
        text += f"\n![{_CAPTIONS[kind]}]({path.relative_to(docs)})\n"
    if "roofline" not in pictures and {"attention", "ceilings"} <= results.keys():
        text += "\nNo roofline: attention went past the ceilings, which were measured on a busier machine.\n"
    for what in groups.GROUPS:
        if what not in results:
            continue
        text += f"\n### {what}: {groups.GROUPS[what]}\n"
        if what == "tmaze":
            text += "\n" + _tmaze(results[what])
            continue
        for (_, size, mode), entries in results[what].comparisons().items():
            text += f"\n**{size}**, {mode}\n\n{tables.full(entries)}"
    return text


def _machines(results: dict[str, Result]) -> str:
    rows = []
    for what, result in results.items():
        m = result.machine
        load = " ".join(f"{x:.1f}" for x in m["load"]) or "not recorded"
        rows.append(
            [what, str(m["commit"]), m["date"], m["torch"], str(m["threads"]), result.settings["dtype"], load]
        )
    header = ["result", "commit", "date", "torch", "threads", "dtype", "load at the start"]
    machine = next(iter(results.values())).machine
    return f"{machine['device']}, Python {machine['python']}.\n\n" + tables.table(header, rows)


def _tmaze(result: Result) -> str:
    """Seconds until success 1.0 at trained lengths, and success at every length."""
    rows, corridors = [], []
    for entry in result.entries:
        found = entry.parameters["found"].get(entry.variant, {})
        if not found:
            rows.append([entry.variant, entry.size, entry.reason or "-"])
            continue
        corridors = list(found["success"])
        until, updates = found.get("seconds_to_success"), found.get("updates_to_success")
        when = "not reached" if until is None else f"{until:.0f} s ({updates} updates)"
        when = when if "seconds_to_success" in found else "not recorded"
        rates = [f"{rate:.2f}" for rate in found["success"].values()]
        rows.append([entry.variant, entry.size, when, f"{found['train_seconds']:.0f} s", *rates])
    header = ["training", "seed", "until success 1.0", "all training", *corridors]
    return tables.table(header, [row + ["-"] * (len(header) - len(row)) for row in rows])


def _busy(results: dict[str, Result]) -> str:
    """A warning where other processes had their share of the processor."""
    loads = [r.machine["load"][0] for r in results.values() if not r.on_gpu and r.machine["load"]]
    cores = os.cpu_count() or 1
    if not loads or max(loads) < cores + 1:
        return ""
    return f" (the machine was busy, load {max(loads):.0f}: all times are too long, and ratios near 1 say nothing)"


def _update_readme(readme: Path, results: dict[str, Result]) -> None:
    text = readme.read_text()
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise ValueError(f"{readme} must hold the lines {_BEGIN!r} and {_END!r} once each")
    result = next(iter(results.values()))
    where = result.machine["device"] + (
        "" if result.on_gpu else f", {result.machine['threads']} thread(s) used"
    )
    table = tables.wins_and_losses(results, short=True)
    said = f"{where}, {result.settings['dtype']}{_busy(results)}:\n\n{table}"
    pattern = re.escape(_BEGIN) + r".*?" + re.escape(_END)
    readme.write_text(re.sub(pattern, lambda _: f"{_BEGIN}\n{said}{_END}", text, flags=re.DOTALL))
