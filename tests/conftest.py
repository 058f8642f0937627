"""What may run in this process: `gpu` tests with a device, `interpreter` tests under Triton's interpreter.

The interpreter is chosen when Triton is imported, for a whole process:

    python -m pytest                                            every test; those of the Triton kernels are skipped
    TRITON_INTERPRET=1 RATE_BACKEND=triton python -m pytest     those marked `interpreter`, through the kernels' source
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(config, items):
    if INTERPRETED:
        chosen = [item for item in items if item.get_closest_marker("interpreter")]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
