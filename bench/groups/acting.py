"""One environment step, observation in and action out, from one environment to many.

The published way reads its whole running segment again at every step. It is timed at full context, the last step of a
segment; "mean over a segment" is what an episode costs, the segment's end included. All take numpy observations and
give numpy actions, as an environment has them.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from bench.baselines.published_acting import PublishedActor
from bench.baselines.published_model import PublishedRATE
from bench.baselines.training_step import TMAZE_SCRIPT
from bench.groups.acting_graph import GraphedActor
from bench.runner import Comparison, Settings, Timed, Unavailable, Variant, WrongResult
from rate import RATE
from rate.compat import upstream

Act = Callable[[np.ndarray], np.ndarray]
ENVIRONMENTS = {"tiny": (1, 2), "cpu": (1, 8, 32, 128), "gpu": (1, 8, 32, 128, 512)}
MODES = ("one step at full context", "mean over a segment")
_MARGIN = 1e-3
_SEGMENTS = 4  # of one sample: a single step is too short for the clock


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """For every number of environments, at full context and as a mean."""
    steps = 4 if settings.scale == "tiny" else 50
    for environments in ENVIRONMENTS[settings.scale]:
        for mode in MODES:
            bench = _Bench(settings, environments, steps, mode)
            size = f"T-Maze script, {environments} environment{'s' if environments > 1 else ''}"
            parameters = {"environments": environments, "steps": steps, **TMAZE_SCRIPT}
            yield Comparison("acting", size, mode, bench.variants(), parameters)


class _Bench:
    def __init__(self, settings: Settings, environments: int, steps: int, mode: str) -> None:
        self.settings, self.environments, self.steps, self.mode = settings, environments, steps, mode
        self.random = np.random.default_rng(0)

    def variants(self) -> list[Variant]:
        return [
            Variant("ours, native", functools.partial(self._ours, "signed", "native"), True),
            Variant("ours, native, graph", functools.partial(self._graphed, torch.float32), True),
            Variant(
                "ours, native, graph, bfloat16 weights",
                functools.partial(self._graphed, torch.bfloat16),
                True,
            ),
            Variant("ours, reference", functools.partial(self._ours, "signed", "reference"), True),
            # Published checkpoints: the running segment must be read again, by our operations.
            Variant("ours, published shift", functools.partial(self._ours, "transformer_xl", None), True),
            Variant("published", functools.partial(self._published, True)),
            Variant("published, no host copies", functools.partial(self._published, False)),
        ]

    def _observation(self) -> np.ndarray:
        return self.random.integers(-1, 2, (self.environments, 4)).astype(np.float32)

    def _published_model(self, host_copies: bool) -> PublishedRATE:
        torch.manual_seed(0)
        model = PublishedRATE(**TMAZE_SCRIPT, host_copies=host_copies)  # type: ignore[arg-type]
        return model.to(self.settings.device).eval()

    # --- The published way ---

    def _published(self, host_copies: bool) -> Timed:
        if self.mode != MODES[0] and self.settings.device.type == "cpu" and self.environments > 8:
            raise Unavailable(
                "a segment of so many environments takes it many seconds: see the full-context step"
            )
        device = self.settings.device
        actor = PublishedActor(self._published_model(host_copies), self.steps, self.environments)
        rtg = torch.ones(self.environments, 1, device=device)

        def act(observation: np.ndarray) -> np.ndarray:
            action = actor.act(torch.from_numpy(observation).to(device), rtg).argmax(-1, keepdim=True)
            actor.observe_action(action.float())
            return action[:, 0].cpu().numpy()

        if self.mode != MODES[0]:
            return self._mean(act)
        for _ in range(self.steps - 1):
            act(self._observation())
        kept = dict(vars(actor))  # tensors are replaced at every step, never written to
        observation = self._observation()

        def prepare() -> None:
            vars(actor).update(kept)

        return Timed(lambda: act(observation), prepare=prepare)

    # --- Ours ---

    def _ours(self, shift: str, backend: str | None) -> Timed:
        model = self._our_model(shift)

        def fresh() -> Act:
            actor = model.actor(batch_size=self.environments, backend=backend)
            actor.reset(1.0)
            return actor.act

        self._check(model, fresh(), _MARGIN)
        return self._timed(fresh(), 1 if shift == "transformer_xl" else _SEGMENTS)

    def _graphed(self, weights: torch.dtype) -> Timed:
        model = self._our_model("signed")
        # Weights rounded to bfloat16 are another model, whose actions may differ where two are about as good.
        margin = _MARGIN if weights == torch.float32 else 50 * _MARGIN
        self._check(model, GraphedActor(model, self.environments, weights).act, margin)
        return self._timed(GraphedActor(model, self.environments, weights).act, _SEGMENTS)

    def _our_model(self, shift: str) -> RATE:
        theirs = self._published_model(host_copies=False)
        model = upstream.load(theirs.state_dict(), TMAZE_SCRIPT, segment_length=self.steps)
        if shift != model.config.shift:
            config = dataclasses.replace(model.config, shift=shift, write_last_action=True)
            same, model = model, RATE(config)
            model.load_state_dict(same.state_dict())
        return model.to(self.settings.device).eval()

    def _timed(self, act: Act, segments: int) -> Timed:
        if self.mode != MODES[0]:
            return self._mean(act)

        def last_step() -> float:
            for _ in range(self.steps - 1):
                act(self._observation())
            observation = self._observation()
            started = time.perf_counter()
            act(observation)
            return time.perf_counter() - started

        def sample() -> float:
            return sum(last_step() for _ in range(segments)) / segments

        last_step()
        return Timed(lambda: None, sample=sample)

    def _check(self, model: RATE, act: Act, margin: float) -> None:
        """Greedy actions along one segment are those of the model reading it at once, but for ties."""
        observations = np.stack([self._observation() for _ in range(self.steps)], axis=1)
        actions = np.stack([act(observations[:, t].copy()) for t in range(self.steps)], axis=1)
        device = self.settings.device
        with torch.inference_mode():
            predictions = model(
                torch.from_numpy(observations).to(device),
                torch.from_numpy(actions).long().to(device),
                torch.ones(self.environments, self.steps, 1, device=device),
            ).predictions.cpu()
        best = predictions.max(-1).values
        chosen = predictions.gather(-1, torch.from_numpy(actions).long()[..., None])[..., 0]
        worst = float((best - chosen).max())
        if not worst <= margin:
            raise WrongResult(f"an action was chosen {worst:.2g} below the model's best, allowed is {margin}")

    def _mean(self, act: Act) -> Timed:
        observations = [self._observation() for _ in range(self.steps)]

        def sample() -> float:
            started = time.perf_counter()
            for observation in observations:
                act(observation)
            return (time.perf_counter() - started) / self.steps

        sample()  # from here on every sample holds one segment's end
        return Timed(lambda: None, sample=sample)
