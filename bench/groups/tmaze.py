"""T-Maze: how long training takes to success 1.0, and how far the trained model remembers.

Two regimes per seed: ``full span``, our default (loss through all segments, one optimiser step per batch), and ``span
1, a step per segment``, the published one. While training, corridors of trained length are tried every 25 updates;
success counts when all of them are at 1.0. Then corridors up to sixty-four times the longest trained one.

The runs are kept under ``runs/tmaze-bench`` and go on where an earlier call was cut off.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.runner import Comparison, Settings, Timed, Unavailable, Variant

CORRIDORS = (1, 4, 9, 14, 19, 24, 48, 120, 240, 480, 1536)
REGIMES = {"full span": "full", "span 1, a step per segment": "published"}
SEEDS = (0, 1, 2)
_TRIED = (4, 14, 24)
_EVERY = 25
_RUNS = Path("runs/tmaze-bench")


def comparisons(settings: Settings) -> Iterator[Comparison]:
    """Per seed one comparison of the two regimes; ``milliseconds`` is the training until success, or all of it."""
    seeds = SEEDS[:1] if settings.scale == "tiny" else SEEDS
    for seed in seeds:
        found: dict[str, dict[str, object]] = {label: {} for label in REGIMES}
        parameters = {"corridors": list(CORRIDORS), "found": found}
        variants = [
            Variant(
                label, functools.partial(_build, settings, seed, regime, found[label]), label == "full span"
            )
            for label, regime in REGIMES.items()
        ]
        yield Comparison("tmaze", f"seed {seed}", "training until success", variants, parameters, rounds=1)


def _build(settings: Settings, seed: int, regime: str, found: dict[str, object]) -> Timed:
    try:
        import gymnasium  # noqa: F401
    except ModuleNotFoundError:
        raise Unavailable("gymnasium is not installed: T-Maze needs it") from None
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(scratch) if settings.scale == "tiny" else _RUNS
        train_seconds, to_success = _trained(settings, seed, regime, runs / f"{regime}-{seed}", found)
    found |= {"train_seconds": train_seconds, "seconds_to_success": to_success}
    return Timed(lambda: None, sample=lambda: train_seconds if to_success is None else to_success)


def _trained(
    settings: Settings, seed: int, regime: str, folder: Path, found: dict[str, object]
) -> tuple[float, float | None]:
    """Trains (or goes on), notes the successes in ``found``; returns seconds of training, and until success."""
    from rate.presets import PRESETS
    from rate.training import run as training_run

    preset = PRESETS["tmaze"]
    training = dataclasses.replace(
        preset.training, seed=seed, regime=regime, eval_every=_EVERY, device=settings.device.type
    )
    wanted = dataclasses.replace(preset, task="tmaze", training=training, eval_corridor=_TRIED)
    if settings.scale == "tiny":
        training = dataclasses.replace(training, updates=2, batch_size=4, eval_every=1, eval_episodes=2)
        wanted = dataclasses.replace(wanted, training=training, episodes=20)
    goes_on = (folder / "run.json").is_file()
    trainer = training_run.resume(folder) if goes_on else training_run.start(folder, wanted)
    if not trainer.run():
        raise KeyboardInterrupt
    found["success"] = _successes(folder, settings)
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    seconds = [float(row["seconds"]) for row in rows]
    for index, row in enumerate(rows):
        rates = [float(part.split("=")[1]) for part in row["eval"].split()]  # success_4=0.98 success_14=...
        if rates and min(rates) == 1.0:
            found["updates_to_success"] = int(row["update"])
            return sum(seconds), sum(seconds[: index + 1])
    return sum(seconds), None


def _successes(folder: Path, settings: Settings) -> dict[str, float]:
    """Success rate per corridor length, 100 episodes each, half of them with the hint up."""
    from rate import runs
    from rate.envs import TMazeVector
    from rate.evaluation import evaluate

    episodes, corridors = (4, CORRIDORS[:2]) if settings.scale == "tiny" else (100, CORRIDORS)
    model = runs.load_model(folder).to(settings.device)
    found = {}
    for corridor in corridors:
        env = TMazeVector(episodes, corridor_length=corridor, balanced_goals=True)
        found[str(corridor)] = evaluate(model, env, episodes, 1.0, seed=1000).success_rate
    return found
