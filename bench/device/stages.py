"""The stages of ``bench/device/run.sh``: what runs, for how long at most, and the record of what came of it.

Only the standard library: it must work where the package itself does not import.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_TAIL = 60
"""Lines of a stage's output that its record keeps; the log has all of them."""


@dataclass
class Stage:
    """One command.

    Args:
        name: unique within a part.
        command: as for ``subprocess``.
        limit: seconds after which it is killed, with everything it started.
        needs: programs without which it is skipped.
        environment: added to the process's.
        fine: exit statuses that are no failure.
    """

    name: str
    command: list[str]
    limit: int
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    fine: tuple[int, ...] = (0,)


@dataclass
class Outcome:
    """What came of a stage: ``status`` is ok, failed, timed out or skipped."""

    name: str
    status: str
    seconds: float
    command: list[str]
    exit_status: int | None = None
    tail: list[str] = field(default_factory=list)


def stages(part: int, dry: bool, scratch: Path) -> list[Stage]:
    """The stages of one part. Limits of a part add up to under nine minutes."""
    python = sys.executable
    results = scratch / "results"
    module = [python, "-m"]
    quick = ["--device", "cpu", "--scale", "tiny", "--rounds", "2", "--no-compile"] if dry else []

    def run(group: str, limit: int, *options: str) -> Stage:
        command = [*module, "bench", "run", group, "--out", str(results), *quick, *(() if dry else options)]
        if not dry:
            command += ["--seconds", str(limit - 25)]
        return Stage(f"bench {group}", command, limit)

    build = Stage("build", [python, "bench/device/build.py", *(["--dry-run"] if dry else [])], 110)
    short = [*module, "bench.device.short_cases", *(["--device", "cpu"] if dry else [])]
    profile = [*module, "bench.device.profile", *(["--device", "cpu"] if dry else [])]
    pytest = [*module, "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    chosen = ["tests/rate_kernels/test_segment.py"] if dry else ["-m", "gpu", "tests/rate_kernels"]
    model = ["tests/rate/test_config.py"] if dry else ["-m", "gpu", "tests/rate"]
    no_cache = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    sanitizer = ["compute-sanitizer", "--target-processes", "application-only", "--error-exitcode", "9"]
    ncu = ["ncu", "--clock-control", "none", "--profile-from-start", "off", "--launch-count", "16"]
    for section in ("SpeedOfLight", "LaunchStats", "Occupancy", "MemoryWorkloadAnalysis"):
        ncu += ["--section", section]
    parts = {
        1: [
            Stage("nvidia-smi", ["nvidia-smi"], 10, ("nvidia-smi",)),
            Stage("nvcc", ["nvcc", "--version"], 10, ("nvcc",)),
            build,
            Stage("info", [*module, "rate_kernels.info"], 30),
            run("ceilings", 35),
            # No tests with the mark is 5 in pytest's own words.
            Stage("gpu tests of the kernels", [*pytest, *chosen], 120, fine=(0, 5)),
            Stage("gpu tests of the model", [*pytest, *model], 50, fine=(0, 5)),
            Stage("short cases", short, 40),
            Stage(
                "memcheck", [*sanitizer, "--tool", "memcheck", *short], 45, ("compute-sanitizer",), no_cache
            ),
            Stage("racecheck", [*sanitizer, "--tool", "racecheck", *short], 45, ("compute-sanitizer",)),
            run("overhead", 30),
        ],
        2: [build, run("ceilings", 35), run("attention", 300), run("gate", 55), run("recurrence", 35)],
        3: [
            build,
            run("training-step", 190),
            run("acting", 70),
            run("memory-replay", 60),
            # Trains for minutes where gymnasium is there; only its dry run belongs here.
            *([run("tmaze", 60)] if dry else []),
            Stage("profile", profile, 40),
            Stage("kernel counters", [*ncu, *profile, "--marked"], 50, ("ncu",)),
        ],
    }
    return parts[part]


def run_stage(stage: Stage, log: Any) -> Outcome:
    """Runs a stage to its end or its limit; its output goes to ``log`` and the screen."""
    missing = [program for program in stage.needs if shutil.which(program) is None]
    if missing:
        reason = f"skipped: {', '.join(missing)} not found"
        return Outcome(stage.name, "skipped", 0.0, stage.command, tail=[reason])
    log.write(f"\n==== {stage.name}: {' '.join(stage.command)}\n")
    log.flush()
    began, start = time.monotonic(), log.tell()
    process = subprocess.Popen(
        stage.command,
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that its children can be ended with it
        env=os.environ | stage.environment,
    )
    status, code = "ok", None
    try:
        code = process.wait(stage.limit)
        status = "ok" if code in stage.fine else "failed"
    except subprocess.TimeoutExpired:
        status = "timed out"
        _end(process)
    except KeyboardInterrupt:
        _end(process)
        raise
    log.flush()
    with open(log.name, errors="replace") as written:
        written.seek(start)
        tail = written.read().splitlines()[-_TAIL:]
    return Outcome(stage.name, status, round(time.monotonic() - began, 1), stage.command, code, tail)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def record(path: Path, part: int, dry: bool, outcomes: list[Outcome], scratch: Path) -> None:
    """Writes everything known so far, so that a call cut off loses only its running stage."""
    results = []
    for file in sorted((scratch / "results").glob("*.json")):
        results.append(json.loads(file.read_text()))
    data = {
        "part": part,
        "dry_run": dry,
        "stages": [asdict(outcome) for outcome in outcomes],
        "results": results,
    }
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(data) + "\n")
    os.replace(temporary, path)


def run_part(part: int, dry: bool, out: Path, built: bool = False) -> list[Outcome]:
    """Runs one part's stages one after the other, without the build's dry run if an earlier part had it."""
    scratch = ROOT / "build" / f"device-part{part}"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "results").mkdir(parents=True)
    outcomes: list[Outcome] = []
    with open(out / f"part{part}.log", "w") as log:
        for stage in stages(part, dry, scratch):
            if dry and built and stage.name == "build":
                continue
            if dry:  # a small or busy machine must not fail by its slowness
                stage = dataclasses.replace(stage, limit=4 * stage.limit)
            outcome = run_stage(stage, log)
            outcomes.append(outcome)
            print(f"part {part}  {outcome.seconds:6.1f} s  {outcome.status:9s}  {outcome.name}", flush=True)
            if outcome.status in ("failed", "timed out"):
                print("\n".join(f"    {line[:160]}" for line in outcome.tail[-12:]), flush=True)
            record(out / f"part{part}.json", part, dry, outcomes, scratch)
    return outcomes


def main() -> int:
    """Runs the parts asked for; 1 if a stage failed or ran out of time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=("1", "2", "3", "all"), default="all")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, in tiny sizes")
    parser.add_argument("--out", type=Path, default=Path("device-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.dry_run:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    outcomes = []
    for part in (1, 2, 3) if options.part == "all" else (int(options.part),):
        outcomes += run_part(part, options.dry_run, options.out.resolve(), built=bool(outcomes))
    counts = {
        status: sum(o.status == status for o in outcomes)
        for status in ("ok", "skipped", "failed", "timed out")
    }
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return 1 if counts["failed"] or counts["timed out"] else 0


if __name__ == "__main__":
    sys.exit(main())
