"""A difference is told from noise: on made-up samples, and on two real source trees."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.compare import trees
from bench.compare.verdict import judge
from tests.bench.test_results import entry, result


def ratios(effect: float, noise: float, seed: int, pairs: int = 5, rounds: int = 9) -> list[list[float]]:
    """Log-normal noise of a round and of a process start, and now and then an interruption of one side."""
    rng = np.random.default_rng(seed)
    starts = rng.normal(0, noise / 4, (pairs, 1))
    interrupted = np.where(
        rng.random((pairs, rounds)) < 0.15, rng.normal(0, 10 * noise, (pairs, rounds)), 0.0
    )
    return np.exp(np.log(effect) + starts + rng.normal(0, noise, (pairs, rounds)) + interrupted).tolist()


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.1])
def test_verdicts_under_noise(noise: float) -> None:
    words = {
        effect: [judge("x", ratios(effect, noise, seed)).word for seed in range(40)]
        for effect in (1, 1.2, 0.8)
    }
    assert words[1].count("slower") == words[1].count("faster") == 0
    assert words[1.2].count("slower") >= 38
    assert words[0.8].count("faster") >= 38


def test_wild_samples_are_unclear() -> None:
    wild = [[0.4, 2.5, 1.0], [3.0, 0.5, 2.0], [0.6, 1.1, 0.3]]
    assert judge("x", wild).word == "unclear"


@pytest.mark.parametrize("bad", [[], [[]], [[1.0, -1.0]], [[float("nan")]]])
def test_no_verdict_without_ratios(bad: list[list[float]]) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="'x'"):
        judge("x", bad)


def files(tmp_path: Path, slowdown: float, machine_slower: float) -> list[str]:
    """Two result files; the whole machine was slower when the second was made."""
    rng = np.random.default_rng(0)
    found = []
    for name, ours, speed in (("old", 1.0, 1.0), ("new", slowdown, machine_slower)):
        drift = speed * np.exp(rng.normal(0, 0.1, 9))
        samples = [(level * drift * np.exp(rng.normal(0, 0.01, 9))).tolist() for level in (ours, 4.0, 2.0)]
        one = result(
            [
                entry("ours, native", True, samples[0]),
                entry("published", False, samples[1]),
                entry("SDPA, bias", False, samples[2]),
            ]
        )
        found.append(str(one.write(tmp_path / name)))
    return found


@pytest.mark.parametrize(("slowdown", "status"), [(1.0, 0), (1.2, 1)])
def test_files(tmp_path: Path, slowdown: float, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *files(tmp_path, slowdown, machine_slower=1.7)]) == status
    assert ("slower: small" in capsys.readouterr().out) == bool(status)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "no-such-commit", "HEAD"], "no commit"),
        (["compare", "old.json", "HEAD"], "only be compared with another results file"),
        (["compare", "a.json", "b.json"], "no results file a.json"),
        (["compare", "HEAD", "HEAD", "--case", "nothing"], "--case must be part of one of"),
        (["compare", "HEAD", "HEAD", "--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["compare", "tests", "HEAD"], "without rate_kernels"),
        (["run", "speed"], "GROUP must be one of"),
        (["run", "gate", "--rounds", "0"], "--rounds must be at least 1"),
        (["run", "gate", "--device", "cuda:99"], "--device cuda:99 is not available"),
        (["run", "gate", "--device", "cpu", "--cold"], "--cold needs a GPU"),
        (["report", "--add", "nothing.json"], "no results file nothing.json"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_source_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy of the sources in which packing does its work three times is found out; the other case is not blamed."""
    copy = tmp_path / "slow"
    copy.mkdir()
    for package in ("rate", "rate_kernels"):
        shutil.copytree(trees.ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    api = copy / "rate_kernels" / "recurrence" / "api.py"
    call = "return _MODULES[chosen].pack_segment(memory, returns, observations, actions, layout)"
    text = api.read_text()
    assert text.count(call) == 1
    three = f"{call.removeprefix('return ')}\n    " * 2 + call
    api.write_text(text.replace(call, three))
    arguments = ["compare", str(trees.ROOT), str(copy), "--case", "pack", "--pairs", "3", "--rounds", "5"]
    assert main(arguments) == 1
    assert "slower: pack_segment" in capsys.readouterr().out
