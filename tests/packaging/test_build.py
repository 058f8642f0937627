"""The build: with and without tools, switched on and off, and never with torch.

Each build runs on a copy of the tree, with a PATH that holds the named tools only and without build
isolation, so without a network: setuptools, pybind11, cmake and ninja come from the ``dev`` extra.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD_TOOLS = ("cmake", "ninja")
COMPILER = ("c++", "as", "ld", "ar", "ranlib", "strip")
SOURCES = (
    "csrc",
    "rate",
    "rate_kernels",
    "CMakeLists.txt",
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "LICENSE",
    "README.md",
)


def find(tool: str) -> str | None:
    beside_python = Path(sys.executable).parent / tool
    return str(beside_python) if beside_python.exists() else shutil.which(tool)


def needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if find(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not found: {', '.join(missing)}")


pytest.importorskip("pybind11", reason="pybind11 is not installed (the dev extra has it)")
pytest.importorskip(
    "setuptools", minversion="77", reason="setuptools >= 77 is not installed (the dev extra has it)"
)
pytestmark = [pytest.mark.slow, needs(*BUILD_TOOLS)]


@dataclass
class Build:
    returncode: int
    log: str
    wheel: Path | None

    @property
    def names(self) -> list[str]:
        assert self.wheel is not None, self.log
        return zipfile.ZipFile(self.wheel).namelist()

    @property
    def record(self) -> dict[str, Any]:
        assert self.wheel is not None, self.log
        return dict(json.loads(zipfile.ZipFile(self.wheel).read("rate_kernels/_build.json")))

    @property
    def has_module(self) -> bool:
        return any(name.startswith("rate_kernels/_native.") for name in self.names)


class Tree:
    """A copy of what the build needs, and the wheels built from it."""

    def __init__(self, directory: Path) -> None:
        self.path, self.bin, self.out = directory / "tree", directory / "bin", directory / "out"
        ignore = shutil.ignore_patterns("_build.json", "*.so", "*.pyd", "__pycache__")
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.path / name, ignore=ignore)
            else:
                shutil.copy2(ROOT / name, self.path / name)

    def environment(self, tools: tuple[str, ...], **variables: str) -> dict[str, str]:
        shutil.rmtree(self.bin, ignore_errors=True)
        self.bin.mkdir()
        for tool in tools:
            (self.bin / tool).symlink_to(find(tool) or "/nonexistent")
        kept = {
            name: os.environ[name] for name in ("HOME", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ
        }
        return {**kept, "PATH": str(self.bin), "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}

    def build(self, *tools: str, **variables: str) -> Build:
        shutil.rmtree(self.out, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "wheel", "-v", ".", "--no-deps", "--no-build-isolation"]
        result = subprocess.run(
            [*command, "-w", str(self.out)],
            cwd=self.path,
            env=self.environment(tools, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Build(result.returncode, result.stdout, next(self.out.glob("*.whl"), None))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def info_of(build: Build, directory: Path) -> dict[str, Any]:
    """What the installed wheel's own report says."""
    assert build.wheel is not None, build.log
    zipfile.ZipFile(build.wheel).extractall(directory)
    code = (
        "import sys, json; sys.path.insert(0, '.'); "
        # An editable installation of this very package would lend the wheel its extension.
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in repr(finder).lower()]; "
        "from rate_kernels import info; "
        "assert info.__file__.startswith(sys.argv[1]), info.__file__; print(json.dumps(info.collect()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(result.stdout))


def test_without_a_compiler_the_package_is_pure_python_and_says_why(tree, tmp_path):
    build = tree.build(*BUILD_TOOLS)
    assert build.returncode == 0, build.log
    assert not build.has_module
    assert "installs as pure Python: no working C++ compiler was found" in build.log
    data = info_of(build, tmp_path / "installed")
    assert data["build"]["reason"] == "no working C++ compiler was found"
    for operation in ("pack_segment", "roll_cache"):
        found = data["backends"]["cpu"][operation]
        assert found["reference"] is None
        assert (
            "no working C++ compiler was found): install g++ or clang++ and run pip install"
            in found["native"]
        )


@pytest.mark.parametrize(
    ("tools", "reason"), [((), "cmake was not found"), (("cmake",), "neither ninja nor make was found")]
)
def test_without_the_build_tools(tree, tools, reason):
    build = tree.build(*tools)
    assert build.returncode == 0, build.log
    assert not build.has_module
    assert build.record["reason"] == reason


@needs(*COMPILER)
def test_with_a_compiler_and_then_switched_off(tree, tmp_path):
    build = tree.build(*BUILD_TOOLS, *COMPILER, CMAKE_BUILD_TYPE="Debug")  # compiles in half the time
    assert build.returncode == 0, build.log
    assert build.has_module
    assert build.record["native"] is True
    assert build.record["compiler"]
    assert {"rate_kernels/py.typed", "rate/py.typed"} <= set(build.names)
    assert not any(name.startswith(("tests/", "bench/", "csrc/")) for name in build.names)
    assert info_of(build, tmp_path / "installed")["backends"]["cpu"]["pack_segment"]["native"] is None

    off = tree.build(*BUILD_TOOLS, *COMPILER, RATE_NATIVE="0")  # in the same tree: no module may be left over
    assert off.returncode == 0, off.log
    assert not off.has_module
    assert off.record["reason"] == "switched off by RATE_NATIVE=0"


def failure(build: Build, message: str) -> None:
    assert build.returncode != 0, build.log
    assert build.wheel is None
    assert any(message in line for line in build.log.splitlines()), build.log


@needs(*COMPILER)
def test_required_cuda_without_nvcc_fails(tree):
    failure(
        tree.build(*BUILD_TOOLS, *COMPILER, RATE_CUDA="1"),
        "RATE_CUDA=1, but CUDA cannot be built: nvcc was not found",
    )


@needs(*COMPILER)
def test_compile_error_is_not_swallowed(tree):
    header = tree.path / "csrc/include/rate/engine.h"
    header.write_text("int broken = ;\n" + header.read_text())
    failure(tree.build(*BUILD_TOOLS, *COMPILER), "compiling the extension failed")


def test_contradictions_and_unmet_demands_fail(tree):
    failure(
        tree.build(*BUILD_TOOLS, RATE_NATIVE="1"),
        "RATE_NATIVE=1, but the extension cannot be built: no working C++",
    )
    failure(
        tree.build(*BUILD_TOOLS, RATE_CUDA="1"),
        "RATE_CUDA=1, but the extension cannot be built: no working C++",
    )
    failure(tree.build(*BUILD_TOOLS, RATE_CUDA="1", RATE_NATIVE="0"), "RATE_CUDA=1 contradicts RATE_NATIVE=0")
    failure(tree.build(*BUILD_TOOLS, RATE_NATIVE="yes"), "RATE_NATIVE must be 0 or 1, got 'yes'")


@needs(*COMPILER, "nvcc")
def test_cuda_compiles_without_warnings_and_imports_without_a_device(tree, tmp_path):
    flags = {"CXXFLAGS": "-Werror", "CUDAFLAGS": "-Werror=all-warnings"}
    build = tree.build(PATH=os.environ["PATH"], RATE_CUDA="1", **flags)
    assert build.returncode == 0, build.log
    assert build.record["cuda"] is True
    assert build.record["cuda_architectures"] == "80-real;90-real;90-virtual"
    rules = next(tree.path.glob("build/temp*/cmake/build.ninja")).read_text()
    for code in (
        "arch=compute_80,code=[sm_80]",
        "arch=compute_90,code=[sm_90]",
        "arch=compute_90,code=[compute_90]",
    ):
        assert code in rules
    # The runtime is linked statically, so a machine without a driver, or with another toolkit, loads it.
    data = info_of(build, tmp_path / "installed")
    assert data["backends"]["cpu"]["pack_segment"]["native"] is None
    module = next((tmp_path / "installed" / "rate_kernels").glob("_native*"))
    assert b"libcudart.so" not in module.read_bytes()


def test_setup_never_imports_torch():
    """Neither by name nor through anything it imports."""
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise AssertionError("torch was imported")
sys.meta_path.insert(0, Refuse())
sys.argv = ["setup.py", "--version"]
exec(compile(open("setup.py").read(), "setup.py", "exec"), {"__file__": "setup.py", "__name__": "__main__"})
assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().splitlines()[-1] == "0.1.0"
