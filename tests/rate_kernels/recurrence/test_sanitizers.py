"""The C++ operations under the address, undefined-behaviour and thread sanitizers, warnings being errors: the test
programs of csrc/tests, built and run by CMake and CTest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[3] / "csrc/tests"
MISSING = [tool for tool in ("g++", "cmake", "ctest") if shutil.which(tool) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not found: {', '.join(MISSING)}")
@pytest.mark.parametrize(
    ("sanitizer", "native"),
    # How work is split over threads is the same in every instruction set.
    [("address,undefined", "ON"), ("thread", "OFF")],
)
def test_sanitizers_find_nothing(sanitizer, native, tmp_path):
    configure = ["cmake", "-S", str(SOURCES), "-B", str(tmp_path)]
    configure += [f"-DRATE_SANITIZER={sanitizer}", f"-DRATE_NATIVE={native}"]
    subprocess.run([*configure, "-DCMAKE_CXX_COMPILER=g++"], check=True)
    subprocess.run(["cmake", "--build", str(tmp_path), "--parallel", "2"], check=True)
    result = subprocess.run(
        ["ctest", "--test-dir", str(tmp_path), "--output-on-failure"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
