"""``pytest bench --benchmark-only`` measures on a GPU where there is one, in the sizes of that device."""

from __future__ import annotations

import pytest
import torch

from bench.runner import Settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--scale", choices=("tiny", "cpu", "gpu"), help="sizes; those of the device by default")


def settings_of(config: pytest.Config) -> Settings:
    """Of this run; few rounds, since pytest-benchmark repeats by itself."""
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    scale = config.getoption("--scale") or ("gpu" if gpu else "cpu")
    return Settings(device, scale, torch.bfloat16 if gpu else torch.float32, rounds=5, compiled=False)
