"""The extension itself: when it is loaded, what is said when it cannot be, and what it refuses."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch

from rate_kernels import BackendUnavailable, SegmentLayout
from rate_kernels.recurrence import native, pack_segment, roll_cache

CPU = torch.device("cpu")
needs_native = pytest.mark.skipif(native.obstacle(CPU) is not None, reason=str(native.obstacle(CPU)))


def test_import_does_not_load_the_extension():
    code = (
        "import sys, rate_kernels, rate_kernels.recurrence; assert 'rate_kernels._native' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def no_extension(monkeypatch):
    """importlib finds no extension, whatever is installed; the record says what the test puts into it."""

    def import_module(name, *args):  # type: ignore[no-untyped-def]
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(native, "importlib", type("Importlib", (), {"import_module": import_module}))
    native._load.cache_clear()
    yield monkeypatch
    native._load.cache_clear()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, r"this source tree was not installed.*pip install -e \."),
        (
            {"native": False, "reason": "no working C++ compiler was found", "remedy": "install g++"},
            r"no working C\+\+ compiler was found\): install g\+\+ and run pip install --force-reinstall",
        ),
        ({"native": True, "python": "3.9.0"}, r"built for Python 3\.9\.0, this is 3\.\d+"),
    ],
)
def test_missing_extension_says_how_to_get_it(no_extension, record, message):
    no_extension.setattr(native, "build_record", lambda: record)
    tokens = torch.randn(1, 2, 4)
    with pytest.raises(BackendUnavailable, match=message) as raised:
        pack_segment(None, tokens, tokens, tokens, SegmentLayout(), backend="native")
    assert "\n" not in str(raised.value)
    with pytest.raises(BackendUnavailable, match=message):
        roll_cache([tokens], [tokens], 2, backend="native")
    packed = pack_segment(None, tokens, tokens, tokens, SegmentLayout())  # the reference runs
    assert torch.equal(packed, tokens.repeat_interleave(3, dim=1))


def test_extension_that_does_not_load(no_extension):
    def import_module(name, *args):  # type: ignore[no-untyped-def]
        raise ImportError("undefined symbol: gone")

    no_extension.setattr(native.importlib, "import_module", import_module)
    assert "undefined symbol: gone" in native.obstacle(CPU)


def test_extension_of_another_version(no_extension):
    no_extension.setattr(native.importlib, "import_module", lambda name: type("Old", (), {"interface": 0}))
    assert "built from another version" in native.obstacle(CPU)


def test_other_devices():
    assert native.obstacle(torch.device("meta")) == "it runs on cpu and cuda tensors only, got meta"
    tokens = torch.zeros(1, 2, 4, device="meta")
    with pytest.raises(BackendUnavailable, match="cpu and cuda tensors only, got meta"):
        pack_segment(None, tokens, tokens, tokens, SegmentLayout(), backend="native")
    assert pack_segment(None, tokens, tokens, tokens, SegmentLayout()).shape == (1, 6, 4)


# --- CUDA: reasons, from pretended extensions ---

CUDA = torch.device("cuda", 0)
COMPILED = "80-real,90-real,90-virtual"


@pytest.fixture
def pretended(monkeypatch):
    """The obstacle on a CUDA device for an extension with these attributes."""

    def obstacle(capability=(9, 0), **attributes):
        monkeypatch.setattr(native, "_load", lambda: (type("Extension", (), attributes), None))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        return native.obstacle(CUDA)

    return obstacle


def test_an_extension_without_cuda_says_why(pretended, monkeypatch):
    monkeypatch.setattr(native, "build_record", lambda: {"cuda_reason": "nvcc was not found"})
    message = pretended(with_cuda=False)
    assert message.startswith(
        "the extension was built without CUDA (nvcc was not found): install the CUDA toolkit"
    )
    assert "RATE_CUDA=1 pip install" in message


def test_a_driver_too_old_says_so(pretended):
    reason = "CUDA driver version is insufficient for CUDA runtime version (cudaErrorInsufficientDriver)"
    message = pretended(with_cuda=True, cuda_obstacle=lambda: reason)
    assert message == f"the extension's CUDA runtime finds no device: {reason}"


@pytest.mark.parametrize(
    ("capability", "compiled", "runs"),
    [
        ((8, 0), COMPILED, True),
        ((8, 9), COMPILED, True),  # machine code of its major version
        ((9, 0), COMPILED, True),
        ((12, 0), COMPILED, True),  # PTX
        ((7, 5), COMPILED, False),
        ((9, 0), "80-real", False),
        ((8, 0), "86-real,86-virtual", False),
        ((9, 0), "90a-real", True),
    ],
)
def test_code_for_a_device(pretended, capability, compiled, runs):
    message = pretended(capability, with_cuda=True, cuda_obstacle=lambda: None, cuda_architectures=compiled)
    assert (message is None) == runs
    if not runs:
        number = "".join(map(str, capability))
        assert f"no code for sm_{number} (it was built for {compiled})" in message
        assert f"RATE_CUDA_ARCHITECTURES={number} pip install" in message


@needs_native
@pytest.mark.parametrize(
    "sizes", [(-1, 0, 0, 3, 4, 4), (1, 2, 1, 3, 4, 4), (1, 0, 0, 4, 4, 4), (1, 0, 0, 3, 4, 0)]
)
def test_impossible_sizes_are_refused(sizes):
    extension = importlib.import_module("rate_kernels._native")
    views = ((0, 0, 0),) * 4
    with pytest.raises(ValueError, match="impossible sizes"):
        extension.pack_segment(0, sizes, views, 1)
