"""The example of the published training code runs, and its loss falls."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("options", [[], ["--through-memory"]])
def test_it_trains_and_walks(options):
    command = [
        sys.executable,
        "examples/published_rate.py",
        "--batches",
        "40",
        "--batch-size",
        "16",
        *options,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    first, last = map(float, re.search(r"loss (\S+) at first, (\S+) at last", done.stdout).groups())
    assert last < 0.5 * first
    walked = re.findall(r"corridor +(\d+) \((\d) segments\): success (\d\.\d\d)", done.stdout)
    assert [(corridor, segments) for corridor, segments, _ in walked] == [("3", "1"), ("8", "2"), ("13", "3")]
    assert all(0.0 <= float(success) <= 1.0 for *_, success in walked)
