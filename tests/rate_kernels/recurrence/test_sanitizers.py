"""The C++ operations under the address, undefined-behaviour and thread sanitizers, warnings being errors."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ was not found")
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(sanitizer, tmp_path):
    driver = tmp_path / "driver"
    sources = [Path(__file__).with_name("sanitize_driver.cpp"), *sorted((ROOT / "csrc/cpu").glob("*.cpp"))]
    command = ["g++", "-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command += ["-march=native"]  # every instruction set of the attention kernel that can run here
    command += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    command += [f"-I{ROOT / 'csrc/include'}", f"-I{ROOT / 'csrc'}", *map(str, sources), "-o", str(driver)]
    subprocess.run(command, check=True)
    result = subprocess.run([str(driver)], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "all equal\n", "")
