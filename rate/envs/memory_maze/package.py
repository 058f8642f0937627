"""The package ``memory_maze``, made to import and to run: it needs ``gym`` and a way to draw without a screen."""

from __future__ import annotations

import logging
import os
import sys
import types
from ctypes.util import find_library
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import gymnasium

_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


@cache
def tasks() -> ModuleType:
    """``memory_maze.tasks``, whose functions make dm_env environments.

    ``MUJOCO_GL`` says how pictures are drawn, and must be said before the first import of dm_control; where it is not
    set, EGL is taken if its library is there, else OSMesa. The package imports ``gym``, long given up and without
    use here: an empty module stands in for it meanwhile.

    Raises:
        ImportError: if pictures cannot be drawn, saying what to install.
    """
    if "MUJOCO_GL" not in os.environ:
        found = [name for name, library in _LIBRARIES.items() if find_library(library)]
        if not found and sys.platform == "linux":
            raise ImportError(
                "memory-maze draws pictures and found neither libEGL nor libOSMesa: install one "
                "(apt-get install libegl1, or libosmesa6), or set MUJOCO_GL=glfw where there is a screen"
            )
        os.environ["MUJOCO_GL"] = (found or ["glfw"])[0]
    if find_spec("triton") is not None:
        # OpenGL in software brings a compiler library, triton another version of it, and triton crashes if it comes
        # second. Training would import this anyway.
        import torch._dynamo  # noqa: F401
    # One thread draws what it steps: faster than handing over, and quiet where an environment is never closed.
    os.environ.setdefault("DISABLE_RENDER_THREAD_OFFLOADING", "1")
    replaced = {name: sys.modules.get(name) for name in _stand_ins()}
    if replaced["gym"] is None:
        sys.modules.update(_stand_ins())
    try:
        import memory_maze.tasks as found_tasks
    except (AttributeError, ImportError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError):
            raise
        raise ImportError(
            f"memory-maze cannot draw with MUJOCO_GL={os.environ['MUJOCO_GL']}: {error}"
        ) from error
    finally:
        if replaced["gym"] is None:
            for name in replaced:
                sys.modules.pop(name, None)
    logging.getLogger("absl").addFilter(_without_noise)
    return found_tasks


def _stand_ins() -> dict[str, ModuleType]:
    """Modules with the names that the package imports from ``gym``, and nothing behind them."""
    made: dict[str, Any] = {
        name: types.ModuleType(name) for name in ("gym", "gym.envs", "gym.envs.registration")
    }
    made["gym"].Env, made["gym"].Space = gymnasium.Env, gymnasium.Space
    made["gym"].spaces = made["gym.spaces"] = gymnasium.spaces
    made["gym.envs.registration"].register = lambda *args, **kwargs: None
    return made


def _without_noise(record: logging.LogRecord) -> bool:
    """Every reset of a maze would log this."""
    return "Cannot set velocity on Entity with no free joint" not in record.getMessage()
