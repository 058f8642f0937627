"""Builds csrc/cuda over the emulation into the Python module ``_emulated``.

Undefined behaviour ends the process. The emulation tells an address sanitizer of its stacks: built with
``-fsanitize=address`` the module runs in a Python that has libasan preloaded.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def build(folder: Path) -> ModuleType:
    """The module, built into ``folder``, warnings being errors."""
    import pybind11

    sources = [
        HERE / "emulated_module.cpp",
        HERE / "emulation" / "emulation.cpp",
        ROOT / "csrc" / "bindings_cuda.cpp",
        ROOT / "csrc" / "cpu" / "engine_layout.cpp",
        *sorted((ROOT / "csrc" / "cuda").glob("*.cu")),
    ]
    includes = [HERE / "emulation", ROOT / "csrc" / "include", ROOT / "csrc", pybind11.get_include()]
    includes.append(sysconfig.get_paths()["include"])
    command = ["g++", "-std=c++17", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    command += ["-fsanitize=undefined", "-fno-sanitize-recover=undefined"]  # misaligned vectors, for one
    command += ["-fvisibility=hidden", '-DRATE_CUDA_ARCHITECTURES="80-real"']
    command += [f"-I{path}" for path in includes]

    def compile_one(source: Path) -> str:
        target = folder / f"{source.name}.o"
        subprocess.run([*command, "-x", "c++", "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    module = folder / f"_emulated{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run(["g++", "-shared", "-fsanitize=undefined", *objects, "-o", str(module)], check=True)
    spec = importlib.util.spec_from_file_location("_emulated", module)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
