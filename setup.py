"""Drives CMake, which builds the extension (CMakeLists.txt), and records what came of it.

Everything else about the package is in pyproject.toml. Never imports torch: the extension does not use it.

Environment:
    RATE_NATIVE  0: do not build the extension; 1: fail where it cannot be built. By default it is built if a
                 compiler is there; if not, the package installs as pure Python and says why.
    RATE_CUDA    0: leave the CUDA sources out; 1: fail where they cannot be built. By default they are built
                 if nvcc is there.
    RATE_CUDA_ARCHITECTURES  compute capabilities, "80;90" by default.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "rate_kernels"


def switch(name: str) -> str | None:
    """The environment variable ``name``: "0", "1", or None when it is unset or empty."""
    value = os.environ.get(name) or None
    if value not in (None, "0", "1"):
        raise SystemExit(f"{name} must be 0 or 1, got {value!r}")
    return value


def missing_tool() -> tuple[str, str] | None:
    """What keeps CMake itself from running and what helps, or None."""
    if shutil.which("cmake") is None:
        return "cmake was not found", "install cmake"
    if sys.platform != "win32" and not any(shutil.which(tool) for tool in ("ninja", "make")):
        return "neither ninja nor make was found", "install ninja"
    if importlib.util.find_spec("pybind11") is None:
        return "pybind11 was not found", "install pybind11"
    return None


class CMakeBuild(build_ext):
    """Builds rate_kernels._native and writes rate_kernels/_build.json beside it."""

    def build_extension(self, extension: Extension) -> None:
        module = Path(self.get_ext_fullpath(extension.name)).resolve()
        module.parent.mkdir(parents=True, exist_ok=True)
        module.unlink(missing_ok=True)  # an earlier build's module must not survive a build without one
        record = self.build(module.parent)
        record |= {"version": self.distribution.get_version(), "python": platform.python_version()}
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        (module.parent / "_build.json").write_text(text)
        if not record["native"]:
            print(
                f"rate-kernels installs as pure Python: {record['reason']} ({record['remedy']})",
                file=sys.stderr,
            )

    def build(self, directory: Path) -> dict[str, Any]:
        """Builds the module into ``directory`` and returns the record of the build."""
        native, cuda = switch("RATE_NATIVE"), switch("RATE_CUDA")
        if native == "0":
            if cuda == "1":
                raise SystemExit("RATE_CUDA=1 contradicts RATE_NATIVE=0: CUDA is a part of the extension")
            return self.without("switched off by RATE_NATIVE=0", "unset RATE_NATIVE")
        missing = missing_tool()
        record = self.without(*missing) if missing else self.run_cmake(directory, cuda)
        if not record["native"]:
            for name, value in (("RATE_NATIVE", native), ("RATE_CUDA", cuda)):
                if value == "1":
                    raise SystemExit(f"{name}=1, but the extension cannot be built: {record['reason']}")
        return record

    @staticmethod
    def without(reason: str, remedy: str) -> dict[str, Any]:
        return {
            "native": False,
            "reason": reason,
            "remedy": remedy,
            "cuda": False,
            "cuda_reason": "the extension is not built",
        }

    def run_cmake(self, directory: Path, cuda: str | None) -> dict[str, Any]:
        import pybind11

        # Always from scratch: under build isolation the paths of cmake, ninja and pybind11 change from call
        # to call, and a cache that remembers them breaks the second build. There is little to compile.
        build = Path(self.build_temp).resolve() / "cmake"
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        arguments = [
            f"-DRATE_OUTPUT_DIRECTORY={directory}",
            f"-DRATE_CUDA={ {None: 'AUTO', '0': 'OFF', '1': 'ON'}[cuda] }",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]
        if architectures := os.environ.get("RATE_CUDA_ARCHITECTURES"):
            arguments.append(f"-DRATE_CUDA_ARCHITECTURES={architectures}")
        if sys.platform != "win32" and "CMAKE_GENERATOR" not in os.environ:
            arguments += ["-G", "Ninja" if shutil.which("ninja") else "Unix Makefiles"]
        self.call("configuring", "cmake", "-S", str(ROOT), "-B", str(build), *arguments)
        record: dict[str, Any] = json.loads((build / "rate_build.json").read_text())
        if record["native"]:
            jobs = str(min(4, os.cpu_count() or 1))
            self.call("compiling", "cmake", "--build", str(build), "--config", "Release", "--parallel", jobs)
        return record

    @staticmethod
    def call(what: str, *command: str) -> None:
        print(" ".join(command), flush=True)
        if subprocess.run(command, stderr=subprocess.STDOUT).returncode:
            raise SystemExit(
                f"{what} the extension failed (see CMake's message above). RATE_NATIVE=0 installs without it."
            )

    # The record is an output of the build as the module is, and the module may be missing.

    def built(self) -> list[Path]:
        module = Path(self.build_lib) / self.get_ext_filename("rate_kernels._native")
        return [path for path in (module, module.parent / "_build.json") if path.exists()]

    def get_outputs(self) -> list[str]:
        return [str(path) for path in self.built()]

    def get_output_mapping(self) -> dict[str, str]:
        return {str(path): str(PACKAGE / path.name) for path in self.built()} if self.inplace else {}

    def copy_extensions_to_source(self) -> None:
        module = Path(self.get_ext_filename("rate_kernels._native")).name
        (PACKAGE / module).unlink(missing_ok=True)
        for path in self.built():
            # Replaced, not overwritten: a running process may have the old module mapped.
            shutil.copy2(path, PACKAGE / f"{path.name}.new")
            os.replace(PACKAGE / f"{path.name}.new", PACKAGE / path.name)


setup(
    ext_modules=[Extension("rate_kernels._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
