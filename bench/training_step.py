"""One training step (forward, loss, backward) against the published formulation, in one run.

    python -m bench.training_step [--threads 2] [--repeats 5] [--save]

The size is that of the published T-Maze script: d 64, 10 layers, 4 heads of 32, 15 memory tokens, 50 steps, batch 32,
no feed-forward part, dropout 0.2. All variants are timed in turn within each repeat, so that a change of the machine's
speed meets them alike. A gate before the timing compares our loss with the published one on the same parameters.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from bench.baselines.training_step import TMAZE_SCRIPT, PublishedTrainingStep
from bench.record import save
from rate import RATE, RateConfig
from rate.compat import upstream


def our_step(model: nn.Module, published: PublishedTrainingStep) -> Callable[[], torch.Tensor]:
    """Forward, cross-entropy and backward of one segment, on the published step's batch."""
    observations, returns = published.states, published.rtgs
    actions = published.actions[..., 0].long()

    def step() -> torch.Tensor:
        model.zero_grad(set_to_none=True)
        out = model(observations, actions, returns)
        loss = F.cross_entropy(out.predictions.flatten(0, 1), actions.flatten())
        loss.backward()
        return loss.detach()

    return step


def check(published: PublishedTrainingStep) -> float:
    """Relative difference of the two losses on the same parameters, without dropout; raises above 1e-4."""
    theirs = published.model
    ours = upstream.load(theirs.state_dict(), TMAZE_SCRIPT, segment_length=50)
    theirs.eval()
    expected, actual = published(), our_step(ours, published)()
    theirs.train()
    difference = float((actual - expected).abs() / expected.abs())
    if difference > 1e-4:
        raise AssertionError(f"our loss differs from the published one by {difference:.1e}")
    return difference


def variants(published: PublishedTrainingStep, compiled: bool) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    same = upstream.load(published.model.state_dict(), TMAZE_SCRIPT, segment_length=50).train()
    config = RateConfig(
        segment_length=50,
        num_memory=15,
        gate_heads=2,
        d_model=64,
        num_layers=10,
        d_head=32,
        d_inner=0,
        dropout=0.2,
    )
    new = RATE(config).train()
    found: dict[str, Callable[[], object]] = {
        "published": published,
        "ours, published block": our_step(same, published),
        "ours, pre-norm": our_step(new, published),
    }
    if compiled:
        found["ours, published block, compiled"] = our_step(torch.compile(same, fullgraph=True), published)
        found["ours, pre-norm, compiled"] = our_step(torch.compile(new, fullgraph=True), published)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--save", action="store_true", help="write the result under bench/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    published = PublishedTrainingStep()
    print(f"loss agrees with the published one to {check(published):.1e}")
    steps = variants(published, not options.no_compile)
    for step in steps.values():
        step()
        step()
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.repeats):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            samples[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in samples.items()}
    for name, median in medians.items():
        print(f"{name:34s} {median:7.3f} s   {medians['published'] / median:5.2f} times the published speed")
    if options.save:
        print(
            save("training-step", {"size": "T-Maze script, batch 32", "seconds": samples, "medians": medians})
        )


if __name__ == "__main__":
    main()
