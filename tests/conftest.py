"""What may run in this process: `gpu` tests with a device, `interpreter` tests under Triton's interpreter.

The interpreter is chosen when Triton is imported, for a whole process:

    python -m pytest                                            every test; those of the Triton kernels are skipped
    TRITON_INTERPRET=1 RATE_BACKEND=triton python -m pytest     those marked `interpreter`, through the kernels' source
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _call_without_preparing(self, *args, **kwargs):
    return self.rewrite()(*args, **kwargs)


if INTERPRETED:
    # Each call of one function under triton.jit by another prepares triton.language anew, half of the interpreter's
    # time; the launch has done so for functions that use it under its usual name.
    from triton import language
    from triton.runtime.interpreter import InterpretedFunction

    _call = InterpretedFunction.__call__
    InterpretedFunction.__call__ = lambda self, *args, **kwargs: (
        _call_without_preparing if language is self.fn.__globals__.get("tl") else _call
    )(self, *args, **kwargs)


def pytest_collection_modifyitems(config, items):
    # Files with long tests first, so that no process works on one at the end while the others have nothing to do.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if INTERPRETED:
        chosen = [item for item in items if item.get_closest_marker("interpreter")]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
