"""Results survive being written and read, and what they say is worked out right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench.report import page, plots, tables
from bench.report.ratios import standings
from bench.results import Entry, Result, load, machine, newest
from bench.runner import Comparison, Settings, Timed, Unavailable, Variant, WrongResult, run

PARAMETERS = {
    "batch": 1,
    "heads": 2,
    "d_head": 4,
    "d_pos": 4,
    "memory": 1,
    "cache": 0,
    "tokens": 6,
    "kind": "real",
    "visible_pairs": 70,
}


def entry(variant: str, ours: bool, milliseconds: list[float], **changes) -> Entry:
    fields = {"group": "attention", "size": "small", "mode": "forward + backward", "parameters": PARAMETERS}
    return Entry(variant=variant, ours=ours, milliseconds=milliseconds, **(fields | changes))


def result(entries: list[Entry], what: str = "attention") -> Result:
    return Result(what, machine(torch.device("cpu")), {"scale": "tiny", "dtype": "float32"}, entries)


def test_round_trip(tmp_path: Path) -> None:
    written = result(
        [entry("ours, native", True, [1.0, 2.5], peak_bytes=12, error=1e-7), entry("x", False, [])]
    )
    path = written.write(tmp_path)
    assert load(path) == [written]
    assert newest(tmp_path) == {"attention": written}
    assert path.name == f"{written.machine['date']}-attention.json"


def test_record_of_a_device_run(tmp_path: Path) -> None:
    path = tmp_path / "part1.json"
    one = result([entry("ours, native", True, [1.0])])
    path.write_text(json.dumps({"stages": [], "results": [one.as_json()]}))
    assert load(path) == [one]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "no benchmark result"),
        ('{"schema": 1}', "schema 2"),
        ('{"schema": 2}', "entries"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"broken.json.*{message}|{message}"):
        load(path)


def test_standing_is_round_by_round() -> None:
    """The machine slows threefold in the second round; the ratio does not care."""
    ours = entry("ours, native", True, [1.0, 3.0, 1.0])
    entries = [ours, entry("published", False, [4.0, 12.0, 4.4]), entry("SDPA, bias", False, [0.5, 1.5, 0.5])]
    entries.append(entry("reference", False, [], reason="too large"))
    (standing,) = standings(result(entries))
    assert standing.published is not None and standing.published.ratio == pytest.approx(4.0)
    assert (standing.best.baseline, standing.best.ratio) == ("SDPA, bias", 0.5)
    table = tables.wins_and_losses({"attention": result(entries)}, short=True)
    assert "| 4.00 | **0.50 (loss)** | SDPA, bias |" in table
    assert "Not measured: reference (too large)" in tables.full(entries)


def test_page_and_readme(tmp_path: Path) -> None:
    results = tmp_path / "results"
    entries = [entry("ours, native", True, [1.0]), entry("published", False, [4.0], peak_bytes=2**20)]
    result(entries).write(results / "cpu")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{page._BEGIN}\nold\n{page._END}\nafter\n")
    written = page.write(results, tmp_path / "docs", readme)
    text = readme.read_text()
    assert "old" not in text and "| 4.00 |" in text and text.startswith("before") and text.endswith("after\n")
    said = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "No GPU has run this code" in said and "1.0 MiB" in said
    assert all(path.stat().st_size for path in written)
    page.write(results, tmp_path / "docs", readme)
    assert readme.read_text() == text  # writing again changes nothing
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="must hold the lines"):
        page.write(results, tmp_path / "docs", readme)


def test_least_work() -> None:
    """By hand: 70 pairs of d 4, 8 rows of 2 heads of 4 float32."""
    forward = entry("ours", True, [1.0], mode="forward")
    assert plots.least_work(forward, 4) == (6 * 4 * 70, 2 * 4 * 4 * (8 + 8 + 8 + 8))
    assert plots.least_work(entry("ours", True, [1.0]), 4)[0] == 20 * 4 * 70


def test_run_goes_on_past_what_cannot_run() -> None:
    def unavailable() -> Timed:
        raise Unavailable("not on this machine")

    def broken() -> Timed:
        raise RuntimeError("first line\nsecond line")

    def wrong() -> Timed:
        raise WrongResult("out differs")

    calls = []
    fine = Variant("fine", lambda: Timed(lambda: calls.append(1), 0.0), ours=True)
    settings = Settings(torch.device("cpu"), "tiny", rounds=4)

    def measured(*variants: Variant) -> tuple[bool, list[Entry]]:
        found = result([], "test")
        right = run([Comparison("test", "small", "call", list(variants))], found, settings, lambda _: None)
        return right, found.entries

    right, entries = measured(Variant("a", unavailable, ours=True), Variant("b", broken), fine)
    assert right and [e.reason for e in entries] == ["not on this machine", "RuntimeError: first line", None]
    assert len(entries[2].milliseconds) == 4 and calls
    assert not measured(fine, Variant("wrong", wrong))[0]
    assert not measured(fine, Variant("ours and broken", broken, ours=True))[0]
