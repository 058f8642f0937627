"""Runs that are killed or interrupted, as processes of their own, go on bit for bit."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rate.cli import main
from tests.rate.training.helpers import metrics, weights

# An evaluation after every update gives time to end the run in the middle.
ARGUMENTS = shlex.split(
    "tmaze --episodes 30 --corridor 1 2 3 --eval-corridor 25 --model.segment-length 2 --model.segments 2 "
    "--model.d-model 16 --model.num-layers 1 --model.num-heads 2 --model.d-inner 16 --model.dropout 0.2 "
    "--training.updates 8 --training.batch-size 4 --training.threads 1 --training.device cpu "
    "--training.checkpoint-every 2 --training.eval-every 1 --training.eval-episodes 10"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", *ARGUMENTS, "--run", str(folder)]) == 0
    return folder


def _end(folder: Path, number: signal.Signals, begun: Callable[[], bool], *more: str):
    """Starts a run and sends it a signal once it has ``begun``."""
    command = [sys.executable, "-m", "rate", "train", *ARGUMENTS, "--run", str(folder), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not begun():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert 2 <= len(metrics(folder)) < 8  # it was in the middle
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_killed(tmp_path, whole):
    folder = tmp_path / "run"
    saved = folder / "checkpoints" / "update-00000002"
    assert _end(folder, signal.SIGKILL, saved.is_dir).returncode == -signal.SIGKILL
    left = folder / "checkpoints" / ".update-00000008.tmp"
    shutil.rmtree(left, ignore_errors=True)
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")  # as if it had been saving
    assert main(["train", "--resume", str(folder)]) == 0
    assert weights(folder) == weights(whole)
    assert metrics(folder) == metrics(whole)


def test_interrupted(tmp_path, whole):
    folder = tmp_path / "run"
    file = folder / "metrics.csv"
    # The checkpoint that the interruption leaves is the only one.
    done = _end(
        folder,
        signal.SIGINT,
        lambda: file.is_file() and len(metrics(folder)) >= 2,
        "--training.checkpoint-every=99",
    )
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == (
        f"interrupted and saved; continue with: rate train --resume {folder}"
    )
    rows = metrics(folder)
    assert (folder / "checkpoints" / f"update-{len(rows):08d}").is_dir()  # saved where it stood
    assert weights(folder) == weights(folder / "checkpoints" / f"update-{len(rows):08d}")
    assert weights(folder) != weights(whole)
    assert main(["train", "--resume", str(folder)]) == 0
    assert weights(folder) == weights(whole)
    assert metrics(folder) == metrics(whole)
