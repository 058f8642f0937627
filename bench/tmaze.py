"""T-Maze, trained with gradients through memory and as published, for several seeds.

    python -m bench.tmaze [--seeds 0 1 2] [--runs runs/tmaze-bench] [--save]

Per seed: ``rate train tmaze`` (full gradient span, one optimiser step per batch) and the same model with span 1, memory
detached and a step per segment. Each is then tried at trained and longer corridors, 100 episodes each. Writes the
table, and with ``--save`` a result file and the README's picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

from bench.record import save
from rate import runs
from rate.evaluation import evaluate
from rate.presets import PRESETS
from rate.training import run as training_run
from rate.training.options import RunOptions

CORRIDORS = (1, 4, 9, 14, 19, 24, 48, 120, 240, 480, 1536)
REGIMES = {"full span": "full", "span 1, a step per segment": "published"}
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "tmaze.png"


def options(seed: int, regime: str) -> RunOptions:
    """The preset with this seed and regime."""
    preset = PRESETS["tmaze"]
    training = dataclasses.replace(preset.training, seed=seed, regime=regime, eval_every=0)
    return dataclasses.replace(preset, task="tmaze", training=training)


def trained(folder: Path, wanted: RunOptions) -> float:
    """Trains the run, or goes on where an earlier call was cut off; returns the seconds this took."""
    started = time.perf_counter()
    trainer = (
        training_run.resume(folder) if (folder / "run.json").is_file() else training_run.start(folder, wanted)
    )
    trainer.run()
    return time.perf_counter() - started


def successes(folder: Path) -> dict[int, float]:
    """Success rate per corridor length, 100 episodes each."""
    from rate.envs import TMazeVector

    model = runs.load_model(folder)
    found = {}
    for corridor in CORRIDORS:
        env = TMazeVector(100, corridor_length=corridor, balanced_goals=True)
        found[corridor] = evaluate(model, env, 100, 1.0, seed=1000).success_rate
    return found


def draw(results: list[dict]) -> None:
    """Success against corridor length: one line per seed, one colour per regime."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    axes = figure.subplots()
    for regime, colour in zip(REGIMES, ("#0072b2", "#d55e00"), strict=True):
        for index, result in enumerate(r for r in results if r["regime"] == regime):
            rates = [result["success"][str(c)] for c in CORRIDORS]
            label = regime if index == 0 else None
            axes.plot(CORRIDORS, rates, "o-", color=colour, markersize=4, alpha=0.8, label=label)
    axes.axvspan(1, 24, color="0.92", zorder=0, label="trained lengths")
    axes.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
    axes.set(xscale="log", ylim=(0.35, 1.04), xlabel="corridor length (steps)", ylabel="success rate")
    axes.set_title("T-Maze: the hint is seen once, at the first step", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", frameon=False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=140)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/tmaze-bench"))
    parser.add_argument("--save", action="store_true", help="write the result and the picture")
    chosen = parser.parse_args()
    results = []
    print(f"{'regime':28s} {'seed':>4s} {'train':>6s} " + " ".join(f"{c:>5d}" for c in CORRIDORS))
    for label, regime in REGIMES.items():
        for seed in chosen.seeds:
            folder = chosen.runs / f"{regime}-{seed}"
            seconds = trained(folder, options(seed, regime))
            success = successes(folder)
            rates = " ".join(f"{success[c]:5.2f}" for c in CORRIDORS)
            print(f"{label:28s} {seed:4d} {seconds:5.0f}s {rates}", flush=True)
            found = {str(corridor): rate for corridor, rate in success.items()}
            results.append({"regime": label, "seed": seed, "train_seconds": seconds, "success": found})
    if chosen.save:
        draw(results)
        print(save("tmaze", {"updates": PRESETS["tmaze"].training.updates, "results": results}), PICTURE)


if __name__ == "__main__":
    main()
