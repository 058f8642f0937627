"""A run's folder: what it was asked (``run.json``), its model, checkpoints, metrics and evaluations."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from rate import models
from rate.models import Model
from rate.persistence import write_text
from rate.training.options import ModelOptions, RunOptions, TrainingOptions


def check_free(folder: Path) -> None:
    """Raises FileExistsError if a run is in ``folder``."""
    if (folder / "run.json").exists():
        raise FileExistsError(
            f"a run is already at {folder}: continue it with --resume {folder} or name another --run"
        )


def create(folder: Path, options: RunOptions) -> None:
    """Makes the folder and writes ``run.json``.

    Raises:
        FileExistsError: if a run is there already.
    """
    check_free(folder)
    write_text(folder / "run.json", json.dumps(dataclasses.asdict(options), indent=2) + "\n")


def load_options(folder: Path) -> RunOptions:
    """Reads ``run.json``.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the file is not valid.
    """
    file = folder / "run.json"
    if not file.is_file():
        raise FileNotFoundError(f"no run at {folder}: {file} is missing")
    try:
        fields: dict[str, Any] = json.loads(file.read_text())
        fields["model"] = ModelOptions(**fields["model"])
        fields["training"] = TrainingOptions(**fields["training"])
        for name in ("options", "corridor", "eval_corridor"):
            fields[name] = tuple(fields.get(name, ()))
        return RunOptions(**fields)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a valid run: {error}") from None


def load_model(folder: Path, device: str | torch.device = "cpu") -> Model:
    """The newest model of a run, or of a folder that holds only a model."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no run at {folder}")
    return models.load(folder, device)
