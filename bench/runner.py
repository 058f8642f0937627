"""Comparisons: several ways to do the same work, checked, then timed in turn.

A group (a module of ``bench.groups``) makes :class:`Comparison` objects; this file builds their variants, times them
round by round, so that a change of the machine's speed meets them alike, and records the samples. A variant that
cannot run here says why; one that runs and is wrong is not timed, and fails the run.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.results import Entry, Result
from bench.timing import Clock, peak_bytes
from rate_kernels import BackendUnavailable


class Unavailable(Exception):
    """A variant cannot be measured here; the message says why."""


class WrongResult(AssertionError):
    """A variant computes something else than it should."""


@dataclass
class Timed:
    """What a variant's ``build`` returns.

    Args:
        call: does the work once.
        error: largest relative error by norm that its check found, if one was made.
        prepare: to be run before every call, untimed.
        sample: replaces the timing of ``call``: returns the seconds of one sample by itself.
    """

    call: Callable[[], object]
    error: float | None = None
    prepare: Callable[[], None] | None = None
    sample: Callable[[], float] | None = None


@dataclass
class Variant:
    """One way to do the work.

    Args:
        name: as it is printed and recorded.
        build: makes the problem, checks the answer and returns what is timed.
        ours: whether it is this package.
    """

    name: str
    build: Callable[[], Timed]
    ours: bool = False


@dataclass
class Comparison:
    """Variants that do the same work.

    Args:
        group, size, mode: what is compared, as printed and recorded.
        variants: the ways to do it.
        parameters: the size in numbers, recorded with every entry.
        memory: whether the peaks are measured too.
        rounds: in place of the settings'.
    """

    group: str
    size: str
    mode: str
    variants: list[Variant]
    parameters: dict[str, Any] = field(default_factory=dict)
    memory: bool = False
    rounds: int | None = None


@dataclass
class Settings:
    """How a run measures.

    Args:
        device: where the work is done.
        scale: ``"tiny"``, ``"cpu"`` or ``"gpu"``, see :mod:`bench.sizes`.
        dtype: of attention's and the gate's tensors.
        rounds: samples per variant.
        slow_rounds: samples per variant when a call takes longer than a second.
        compiled: whether ``torch.compile`` variants are measured.
        cold: on a GPU, flush the L2 cache before every call.
        seconds: no new comparison starts after this many; None for no limit.
        variants: only variants whose name contains one of these; empty for all.
    """

    device: torch.device
    scale: str
    dtype: torch.dtype = torch.float32
    rounds: int = 9
    slow_rounds: int = 3
    compiled: bool = True
    cold: bool = False
    seconds: float | None = None
    variants: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "dtype": str(self.dtype).removeprefix("torch."),
            "rounds": self.rounds,
            "compiled": self.compiled,
            "cold": self.cold,
        }

    def wanted(self, variant: Variant) -> bool:
        return not self.variants or any(part in variant.name for part in self.variants)


def build(variant: Variant) -> tuple[Timed | None, str | None, bool]:
    """The variant ready to run, or why not; and whether that is a failure: a wrong answer, or an error of ours."""
    try:
        return variant.build(), None, False
    except (Unavailable, BackendUnavailable) as reason:
        return None, str(reason), False
    except WrongResult as wrong:
        return None, f"WRONG: {wrong}", True
    except torch.OutOfMemoryError:
        return None, "out of memory", False
    except Exception as error:  # a baseline that this torch cannot run must not take the others with it
        first = (str(error).strip() or repr(error)).splitlines()[0]
        return None, f"{type(error).__name__}: {first[:200]}", variant.ours


def measure(comparison: Comparison, settings: Settings) -> tuple[list[Entry], bool]:
    """The entries of one comparison, and whether nothing failed."""
    clock = Clock(settings.device, cold=settings.cold)
    wanted = [v for v in comparison.variants if settings.wanted(v)]
    entries, ready, right = [], [], True
    for variant in wanted:
        timed, reason, failed = build(variant)
        right = right and not failed
        entry = Entry(
            comparison.group,
            comparison.size,
            comparison.mode,
            variant.name,
            variant.ours,
            comparison.parameters,
            reason=reason,
        )
        entries.append(entry)
        if timed is None:
            continue
        entry.error = timed.error
        try:
            calls = 1 if timed.sample else clock.warm_up(timed.call, timed.prepare)
            if comparison.memory:  # after the warm-up: what is set up once is not the call's
                entry.peak_bytes = peak_bytes(timed.call, settings.device)
            ready.append((entry, timed, calls))
        except torch.OutOfMemoryError:
            entry.reason = "out of memory"
    started, rounds = time.perf_counter(), comparison.rounds or settings.rounds
    for done in range(rounds):
        if done >= settings.slow_rounds and time.perf_counter() - started > rounds * len(ready):
            break
        for entry, timed, calls in ready:
            seconds = timed.sample() if timed.sample else clock.sample(timed.call, calls, timed.prepare)
            entry.milliseconds.append(1e3 * seconds)
    return entries, right


def run(
    comparisons: Iterable[Comparison], result: Result, settings: Settings, written: Callable[[Result], object]
) -> bool:
    """Measures all comparisons into ``result``, handing it over after each; True if nothing failed."""
    right, started = True, time.perf_counter()
    for comparison in comparisons:
        if settings.seconds is not None and time.perf_counter() - started > settings.seconds:
            print(f"time is up: {comparison.size}, {comparison.mode} and what follows is not measured")
            break
        entries, fine = measure(comparison, settings)
        right = right and fine
        result.entries += entries
        written(result)
        show(entries)
        torch.compiler.reset()
        gc.collect()
        if settings.device.type == "cuda":
            torch.cuda.empty_cache()
    return right


def show(entries: list[Entry]) -> None:
    """Prints one comparison as a table, fastest first."""
    if not entries:
        return
    print(f"\n{entries[0].group}: {entries[0].size}, {entries[0].mode}", flush=True)
    for entry in sorted(entries, key=lambda e: (e.median is None, e.median)):
        if entry.median is None:
            print(f"  {entry.variant:38s} -  {entry.reason}")
            continue
        spread = f"{min(entry.milliseconds):.4g} .. {max(entry.milliseconds):.4g}"
        peak = "" if entry.peak_bytes is None else f"  {entry.peak_bytes / 2**20:9.1f} MiB"
        print(
            f"{'*' if entry.ours else ' ':>2s}{entry.variant:38s} {entry.median:10.4g} ms  ({spread}){peak}"
        )


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """By norm, in float64; infinite for anything that is not finite."""
    actual, expected = actual.detach().double(), expected.detach().double()
    error = float((actual - expected).norm() / expected.norm().clamp_min(1e-30))
    return error if error == error else float("inf")


def check(named: dict[str, tuple[torch.Tensor, torch.Tensor]], tolerance: float) -> float:
    """The largest relative error of (actual, expected) pairs.

    Raises:
        WrongResult: if it is above ``tolerance``.
    """
    errors = {name: relative_error(*pair) for name, pair in named.items()}
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] <= tolerance:
        raise WrongResult(
            f"{worst} differs by {errors[worst]:.2g} from the reference, allowed is {tolerance:.2g}"
        )
    return errors[worst]


TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}
"""Of a check, by dtype: far above rounding, far below any mistake. float32 products may run in tf32 on a GPU."""
