"""The report on this installation."""

from __future__ import annotations

import json
import subprocess
import sys

import torch

from rate_kernels import info
from rate_kernels.recurrence import native

PURE = {
    "native": False,
    "reason": "no working C++ compiler was found",
    "remedy": "install g++",
    "cuda": False,
}


def test_every_operation_has_a_reference_and_a_state_per_backend():
    data = info.collect()
    assert set(data["backends"]["cpu"]) == {
        "memory_attention",
        "retention_gate",
        "pack_segment",
        "roll_cache",
        "SegmentRecurrence",
    }
    for found in data["backends"]["cpu"].values():
        assert found["reference"] is None
        assert all(reason is None or "\n" not in reason for reason in found.values())
    for name in ("pack_segment", "roll_cache"):
        assert data["backends"]["cpu"][name]["native"] == native.obstacle(torch.device("cpu"))


def test_json_is_what_collect_returns(monkeypatch):
    monkeypatch.setenv("RATE_BACKEND", "reference")
    result = subprocess.run(
        [sys.executable, "-m", "rate_kernels.info", "--json"], capture_output=True, text=True, check=True
    )
    data = json.loads(result.stdout)
    assert data["environment"]["RATE_BACKEND"] == "reference"
    assert data["versions"]["torch"] == torch.__version__
    assert data.keys() == info.collect().keys()


def test_report_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(native, "build_record", lambda: PURE)
    monkeypatch.setattr(native, "obstacle", lambda device: native._why_not_built())
    text = info.report(info.collect())
    assert "extension  no: no working C++ compiler was found (install g++ and reinstall)" in text
    assert "pack_segment, native: the extension is not built (no working C++ compiler was found)" in text


def test_report_without_a_build_record(monkeypatch):
    monkeypatch.setattr(native, "build_record", lambda: None)
    assert "extension  no: this source tree was not installed" in info.report(info.collect())


def test_table():
    operations = {"first": {"triton": "no GPU", "reference": None}, "second": {"native": None}}
    header, first, second, reason = info._table(operations)
    assert header.split() == ["reference", "sdpa", "triton", "native"]
    assert first.split() == ["first", "yes", "-", "no", "-"]
    assert second.split() == ["second", "-", "-", "-", "yes"]
    assert reason.strip() == "first, triton: no GPU"


def test_broken_package_does_not_break_the_report(monkeypatch):
    real = info.importlib.import_module

    def import_module(name, *arguments):  # type: ignore[no-untyped-def]
        if name == "numpy":
            raise RuntimeError("built for\nanother processor")
        return real(name, *arguments)

    monkeypatch.setattr(info.importlib, "import_module", import_module)
    versions = info.collect()["versions"]
    assert versions["numpy"].endswith("but it cannot be imported: RuntimeError: built for another processor")


def test_missing_package(monkeypatch):
    def version(name: str) -> str:
        raise info.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(info.importlib.metadata, "version", version)
    assert info.collect()["versions"]["torch"] == "not installed"


def test_importing_the_packages_imports_neither_the_compiler_nor_triton():
    code = "import sys, torch, rate_kernels, rate; print({'torch._dynamo', 'triton'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
