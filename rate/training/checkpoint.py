"""Checkpoints: whole folders, written beside and renamed; a run continues from its newest."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rate import models
from rate.models import Model

_NAME = re.compile(r"update-(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """A folder ``update-<number>`` with the model and what else training needs to go on."""

    path: Path
    update: int


def save(folder: Path, update: int, model: Model, optimizer: torch.optim.Optimizer, keep: int) -> Checkpoint:
    """Writes the checkpoint of ``update`` finished updates into ``folder`` and removes all but the ``keep`` newest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"update-{update:08d}"
    beside = folder / f".{path.name}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    model.save_pretrained(beside)
    training: dict[str, Any] = {
        "update": update,
        "optimizer": optimizer.state_dict(),
        "torch_rng": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        training["cuda_rng"] = torch.cuda.get_rng_state_all()
    torch.save(training, beside / "training.pt")
    for file in beside.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    shutil.rmtree(path, ignore_errors=True)
    os.replace(beside, path)
    for old in existing(folder)[:-keep]:
        shutil.rmtree(old.path)
    return Checkpoint(path, update)


def existing(folder: Path) -> list[Checkpoint]:
    """Complete checkpoints in ``folder``, oldest first."""
    if not folder.is_dir():
        return []
    found = [(match, entry) for entry in folder.iterdir() if (match := _NAME.fullmatch(entry.name))]
    return sorted((Checkpoint(entry, int(match[1])) for match, entry in found), key=lambda c: c.update)


def restore(checkpoint: Checkpoint, model: Model, optimizer: torch.optim.Optimizer) -> None:
    """Loads parameters, optimiser and random states.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the model does not fit the checkpoint.
    """
    saved = models.load(checkpoint.path)
    if saved.config != model.config:
        raise ValueError(f"config does not fit the checkpoint {checkpoint.path}: its config.json differs")
    model.load_state_dict(saved.state_dict())
    file = checkpoint.path / "training.pt"
    if not file.is_file():
        raise FileNotFoundError(f"no training.pt in {checkpoint.path}")
    training = torch.load(file, weights_only=True, map_location="cpu")
    optimizer.load_state_dict(training["optimizer"])
    torch.set_rng_state(training["torch_rng"])
    if torch.cuda.is_available() and "cuda_rng" in training:
        torch.cuda.set_rng_state_all(training["cuda_rng"])
