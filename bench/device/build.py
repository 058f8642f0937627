"""Builds the extension in place for this machine's GPU, or says that it is built.

Everything it needs may be there but pybind11: every torch carries pybind11's headers, and the few lines of CMake that
the project's own description asks of it are written here.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_PACKAGE = """
def get_cmake_dir():
    return {folder!r}
"""
_CONFIG = """
function(pybind11_add_module name)
    cmake_parse_arguments(MODULE "MODULE" "" "" ${{ARGN}})
    add_library(${{name}} MODULE ${{MODULE_UNPARSED_ARGUMENTS}})
    target_include_directories(${{name}} SYSTEM PRIVATE "{include}" ${{Python_INCLUDE_DIRS}})
    set_target_properties(${{name}} PROPERTIES PREFIX "" SUFFIX "{suffix}" POSITION_INDEPENDENT_CODE ON
        CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden)
endfunction()
"""
_VERSION = "set(PACKAGE_VERSION 3.0)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n"


def pybind11_of_torch(folder: Path) -> Path:
    """A stand-in for the package pybind11 on torch's copy of its headers; returns the path to put before others.

    Raises:
        SystemExit: if torch has no such headers.
    """
    import sysconfig

    import torch

    include = Path(torch.__file__).parent / "include"
    if not (include / "pybind11" / "pybind11.h").is_file():
        raise SystemExit(f"neither the package pybind11 nor {include / 'pybind11'} is there")
    package = folder / "pybind11"
    package.mkdir(parents=True)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    (package / "__init__.py").write_text(_PACKAGE.format(folder=str(package)))
    (package / "pybind11Config.cmake").write_text(_CONFIG.format(include=include, suffix=suffix))
    (package / "pybind11ConfigVersion.cmake").write_text(_VERSION)
    return folder


def built_for(architecture: str) -> bool:
    """Whether the module in the tree loads here and holds code for the architecture."""
    record = ROOT / "rate_kernels" / "_build.json"
    newest = max(p.stat().st_mtime for p in [ROOT / "CMakeLists.txt", *(ROOT / "csrc").rglob("*.*")])
    if not record.is_file() or record.stat().st_mtime < newest:
        return False
    told = json.loads(record.read_text())
    if not told.get("cuda") or architecture not in told.get("cuda_architectures", ""):
        return False
    probe = [sys.executable, "-c", "import rate_kernels._native"]
    return subprocess.run(probe, cwd=ROOT, capture_output=True).returncode == 0


def main() -> int:
    """Builds; the exit status is the build's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dry-run", action="store_true", help="without CUDA, unoptimised, and not into the source tree"
    )
    options = parser.parse_args()
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        where = ["--inplace"]
        if options.dry_run:
            where = ["--build-lib", f"{scratch}/lib"]
            environment |= {"RATE_CUDA": "0", "CMAKE_BUILD_TYPE": "Debug"}
        else:
            import torch

            major, minor = torch.cuda.get_device_capability()
            architecture = f"{major}{minor}"
            if built_for(architecture):
                print(f"the extension is built for sm_{architecture}")
                return 0
            environment |= {"RATE_CUDA_ARCHITECTURES": architecture, "RATE_NATIVE": "1"}
        if options.dry_run or importlib.util.find_spec("pybind11") is None:  # the dry run proves the stand-in
            path = pybind11_of_torch(Path(scratch) / "stand-in")
            environment["PYTHONPATH"] = os.pathsep.join([str(path), environment.get("PYTHONPATH", "")])
        command = [sys.executable, "setup.py", "build_ext", "--build-temp", f"{scratch}/temp", *where]
        status = subprocess.run(command, cwd=ROOT, env=environment).returncode
        if options.dry_run and status == 0:
            modules = list(Path(scratch, "lib").rglob("_native*"))
            print(f"built {[module.name for module in modules]}")
            return 0 if modules else 1
        return status


if __name__ == "__main__":
    sys.exit(main())
