"""Seconds of a call and bytes at its peak, on a CPU or a GPU.

A sample is the mean over a batch of calls that lasts some milliseconds, so that neither the clock's grain nor one
interruption decides it. On a GPU the batch lies between two events; the host only enqueues, so the sample is the
device's time wherever the device is the slower of the two. ``cold`` flushes the L2 cache before every call and times
each by itself.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch

Call = Callable[[], object]
MAX_CALLS = 2000
"""Of one sample; also far fewer launches than would fill a GPU's queue while its first kernels run."""


class Clock:
    """Times calls on one device.

    Args:
        device: where the calls do their work.
        sample_seconds: how long one sample should last at least, as long as MAX_CALLS are enough.
        cold: on a GPU, flush the L2 cache before every call.
        host_clock: for a CPU; ``time.process_time`` leaves out what others had of the processor meanwhile.
    """

    def __init__(
        self,
        device: torch.device,
        sample_seconds: float = 5e-3,
        cold: bool = False,
        host_clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if cold and device.type != "cuda":
            raise ValueError(f"cold needs a GPU, got {device.type}")
        self.device, self.sample_seconds, self.cold, self._now = device, sample_seconds, cold, host_clock

    def warm_up(self, call: Call, prepare: Call | None = None) -> int:
        """Runs the call until its time is known; returns how many calls one sample takes."""
        if prepare is not None:
            prepare()
            call()  # every later call needs its own preparation, so a sample is one call
            return 1
        call()
        synchronize(self.device)
        first = self._host_seconds(call, 1)
        if first > self.sample_seconds:
            return 1
        return max(1, min(MAX_CALLS, int(self.sample_seconds / max(self._host_seconds(call, 3) / 3, 1e-7))))

    def sample(self, call: Call, calls: int, prepare: Call | None = None) -> float:
        """Seconds of one call, as the mean of ``calls`` calls; ``prepare`` runs before each, untimed."""
        if prepare is not None:
            return sum(self._prepared(call, prepare) for _ in range(calls)) / calls
        if self.device.type != "cuda":
            # As in a model, where PyTorch's own products run before: its threads are awake, the clock is up.
            _settle()
            return self._host_seconds(call, calls) / calls
        if self.cold:
            return sum(self._cold(call) for _ in range(calls)) / calls
        return self._device_seconds(call, calls) / calls

    def _prepared(self, call: Call, prepare: Call) -> float:
        prepare()
        synchronize(self.device)
        return self._host_seconds(call, 1)

    def _host_seconds(self, call: Call, calls: int) -> float:
        started = self._now()
        for _ in range(calls):
            call()
        synchronize(self.device)
        return self._now() - started

    def _device_seconds(self, call: Call, calls: int) -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return 1e-3 * begin.elapsed_time(end)

    def _cold(self, call: Call) -> float:
        _flush_buffer(self.device).zero_()
        return self._device_seconds(call, 1)


def host_overhead(call: Call, device: torch.device, calls: int) -> float:
    """Seconds that the host is busy with one call. On a GPU the device works on meanwhile."""
    synchronize(device)
    started = time.perf_counter()
    for _ in range(calls):
        call()
    elapsed = time.perf_counter() - started
    synchronize(device)
    return elapsed / calls


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@functools.cache
def _flush_buffer(device: torch.device) -> torch.Tensor:
    size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
    return torch.empty(max(size, 1 << 26), dtype=torch.uint8, device=device)


@functools.cache
def _settling_matrix() -> torch.Tensor:
    return torch.full((384, 384), 1e-3)


def _settle() -> None:
    torch.mm(_settling_matrix(), _settling_matrix())


# --- Memory ---------------------------------------------------------------------------------------


def peak_bytes(call: Call, device: torch.device) -> int | None:
    """Bytes at the call's peak above what was held before it; None where the system does not tell.

    On a GPU what PyTorch's allocator handed out. On a CPU the process's resident memory, which includes what native
    code takes by itself; what a call can serve from memory the process already holds is not seen, so small peaks
    read too small.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would be taken again unseen
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _status_bytes("VmRSS")
        call()
        return max(0, _status_bytes("VmHWM") - before)
    except (OSError, AttributeError):  # not Linux
        return None


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")
