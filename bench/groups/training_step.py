"""One training step (forward, loss, backward) of a whole model against the published formulation.

The model is that of the published T-Maze script: d 64, 10 layers, 4 heads of 32, 15 memory tokens, 50 steps, dropout
0.2, no feed-forward part. Ours with the published block starts from the same parameters and is checked to give the same
loss without dropout; compiled and captured variants must give the mean loss of what they were made from.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.baselines.training_step import TMAZE_SCRIPT, PublishedTrainingStep
from bench.runner import Comparison, Settings, Timed, Unavailable, Variant, WrongResult
from rate import RATE, RateConfig
from rate.compat import upstream

Step = Callable[[], Tensor]
_AVERAGED = 6


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """In float32; on a GPU then under bfloat16 autocast, and compiled there alone, since compiling takes minutes."""
    batch = {"tiny": 2, "cpu": 32, "gpu": 128}[settings.scale]
    steps = 4 if settings.scale == "tiny" else 50
    size = f"T-Maze script, batch {batch}, {steps} steps"
    parameters = {"batch": batch, "steps": steps, **TMAZE_SCRIPT}
    precisions = ("float32", "bfloat16") if settings.device.type == "cuda" else ("float32",)
    for precision in precisions:
        here = dataclasses.replace(settings, compiled=settings.compiled and precision == precisions[-1])
        bench = _Bench(here, batch, steps, precision == "bfloat16")
        yield Comparison("training-step", size, precision, bench.variants(), parameters, memory=True)


class _Bench:
    """One batch for all variants."""

    def __init__(self, settings: Settings, batch: int, steps: int, autocast: bool) -> None:
        self.settings, self.batch, self.steps, self.lowered = settings, batch, steps, autocast

    def variants(self) -> list[Variant]:
        def ours(block: str, how: str) -> Timed:
            return self._ours(block, how)

        def published(host_copies: bool, compiled: bool) -> Timed:
            return self._published(host_copies, compiled)

        found = [
            Variant("published", functools.partial(published, True, False)),
            Variant("published, no host copies", functools.partial(published, False, False)),
        ]
        if self.settings.compiled:
            found.append(
                Variant("published, no host copies, compiled", functools.partial(published, False, True))
            )
        hows = ["eager", *(["compiled"] if self.settings.compiled else []), "CUDA graph"]
        for block in ("published block", "pre-norm"):
            for how in hows:
                name = f"ours, {block}" + ("" if how == "eager" else f", {how}")
                found.append(Variant(name, functools.partial(ours, block, how), True))
        return found

    @functools.cached_property
    def theirs(self) -> PublishedTrainingStep:
        return PublishedTrainingStep(self.batch, self.steps, device=self.settings.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.settings.device.type, torch.bfloat16, enabled=self.lowered)

    def _published(self, host_copies: bool, compiled: bool) -> Timed:
        step = PublishedTrainingStep(
            self.batch, self.steps, host_copies=host_copies, device=self.settings.device
        )

        def call() -> Tensor:
            with self._autocast():
                return step()

        if compiled:
            expected = _mean(call)
            _quiet()
            step.model = torch.compile(step.model, dynamic=False)  # type: ignore[assignment]
            return Timed(call, self._check_mean(call, expected))
        return Timed(call)

    def _ours(self, block: str, how: str) -> Timed:
        if how == "CUDA graph" and self.settings.device.type != "cuda":
            raise Unavailable("CUDA graphs need a GPU")
        model, error = self._model(block)
        step = self._step(model)
        if how == "eager":
            return Timed(step, error)
        expected = _mean(step)
        if how == "compiled":
            _quiet()
            step = self._step(torch.compile(model, fullgraph=True, dynamic=False))
        else:
            step = captured(step, model)
        return Timed(step, self._check_mean(step, expected))

    def _model(self, block: str) -> tuple[RATE, float | None]:
        if block == "pre-norm":
            torch.manual_seed(0)
            config = RateConfig(
                segment_length=self.steps,
                num_memory=15,
                gate_heads=2,
                d_model=64,
                num_layers=10,
                d_head=32,
                d_inner=0,
                dropout=0.2,
            )
            return RATE(config).to(self.settings.device).train(), None
        model = upstream.load(self.theirs.model.state_dict(), TMAZE_SCRIPT, segment_length=self.steps)
        model = model.to(self.settings.device)
        self.theirs.model.eval()
        with self._autocast():
            expected, actual = float(self.theirs()), float(self._step(model.eval())())
        self.theirs.model.train()
        error = abs(actual - expected) / abs(expected)
        if not error <= (2e-2 if self.lowered else 1e-4):
            raise WrongResult(f"our loss {actual:.6g} differs from the published {expected:.6g}")
        return model.train(), error

    def _check_mean(self, step: Step, expected: float) -> float:
        """Dropout's noise in the mean of a few losses is some percent; of a tiny batch, much more."""
        error = abs(_mean(step) - expected) / abs(expected)
        if not error <= (0.1 if self.batch * self.steps >= 1000 else 0.6):
            raise WrongResult(f"its mean loss is {error:.1%} off that of the eager step")
        return error

    def _step(self, model: nn.Module) -> Step:
        """Forward, cross-entropy and backward of one segment."""
        observations, returns = self.theirs.states, self.theirs.rtgs
        actions = self.theirs.actions[..., 0].long()

        def step() -> Tensor:
            model.zero_grad(set_to_none=True)
            with self._autocast():
                out = model(observations, actions, returns)
                loss = F.cross_entropy(out.predictions.flatten(0, 1), actions.flatten())
            loss.backward()
            return loss.detach()

        return step


def captured(step: Step, model: nn.Module) -> Step:
    """The step as a CUDA graph: recorded once, replayed by every call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def _mean(step: Step) -> float:
    return sum(float(step()) for _ in range(_AVERAGED)) / _AVERAGED


def _quiet() -> None:
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
