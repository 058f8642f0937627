"""Tiny T-Maze runs."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

from rate.training import ModelOptions, RunOptions, TrainingOptions

MODEL = ModelOptions(
    segment_length=2, segments=2, num_memory=2, d_model=16, num_layers=1, num_heads=2, d_inner=16, dropout=0.1
)
TRAINING = TrainingOptions(
    updates=8,
    batch_size=4,
    warmup=2,
    checkpoint_every=2,
    eval_every=4,
    eval_episodes=4,
    device="cpu",
    threads=1,
)


def options(model: dict | None = None, **training) -> RunOptions:
    return RunOptions(
        task="tmaze",
        episodes=20,
        corridor=(1, 2, 3),
        eval_corridor=(3,),
        model=dataclasses.replace(MODEL, **model or {}),
        training=dataclasses.replace(TRAINING, **training),
    )


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of the run's numbers, without the seconds."""
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
