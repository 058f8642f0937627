"""The run on a GPU's machine: every stage stands alone, is cut at its limit, and leaves a record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.device import build, stages
from bench.device.stages import ROOT, Stage, run_stage


def outcome(tmp_path: Path, stage: Stage) -> stages.Outcome:
    with open(tmp_path / "log", "w") as log:
        return run_stage(stage, log)


def test_a_stage_is_recorded_whatever_comes_of_it(tmp_path: Path) -> None:
    python = sys.executable
    fine = outcome(tmp_path, Stage("fine", [python, "-c", "print('said')"], 20))
    assert (fine.status, fine.tail) == ("ok", ["said"])
    assert outcome(tmp_path, Stage("failing", [python, "-c", "raise SystemExit(3)"], 20)).status == "failed"
    assert (
        outcome(tmp_path, Stage("no tests", [python, "-c", "raise SystemExit(5)"], 20, fine=(0, 5))).status
        == "ok"
    )
    missing = outcome(tmp_path, Stage("missing", ["no-such-program"], 20, ("no-such-program",)))
    assert (missing.status, missing.tail) == ("skipped", ["skipped: no-such-program not found"])


def test_a_stage_ends_at_its_limit_with_its_children(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(4); pathlib.Path({str(alive)!r}).touch()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    late = outcome(tmp_path, Stage("late", [sys.executable, "-c", parent], 1))
    assert late.status == "timed out" and late.seconds < 4
    subprocess.run([sys.executable, "-c", "import time; time.sleep(4)"])
    assert not alive.exists()


@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_part_fits_its_call(part: int, tmp_path: Path) -> None:
    """Under nine minutes even if every stage takes all it may, and no stage appears twice."""
    found = stages.stages(part, False, tmp_path)
    assert sum(stage.limit for stage in found) < 9 * 60
    assert len({stage.name for stage in found}) == len(found)
    assert {stage.name for stage in found} <= {stage.name for stage in stages.stages(part, True, tmp_path)}


def test_pybind11_can_be_had_from_torch(tmp_path: Path) -> None:
    path = build.pybind11_of_torch(tmp_path)
    told = subprocess.run(
        [sys.executable, "-c", "import pybind11; print(pybind11.get_cmake_dir())"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(path)},
    )
    assert told.stdout.strip() == str(tmp_path / "pybind11")


@pytest.mark.slow
def test_dry_run(tmp_path: Path) -> None:
    """The whole script on this machine, in tiny sizes: nothing fails, everything is recorded."""
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [str(ROOT / "bench/device/run.sh"), "all", "--dry-run"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4000:]
    measured = set()
    for part in (1, 2, 3):
        data = json.loads((tmp_path / f"part{part}.json").read_text())
        assert {stage["status"] for stage in data["stages"]} <= {"ok", "skipped"}
        measured |= {one["what"] for one in data["results"]}
        assert (tmp_path / f"part{part}.log").stat().st_size
    everything = {"ceilings", "attention", "gate", "recurrence", "overhead", "training-step", "acting"}
    assert measured == everything | {"memory-replay", "tmaze"}
