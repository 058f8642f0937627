"""The model that a configuration describes: RATE's family of transformers, or the recurrent baseline."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from rate.config import RateConfig
from rate.lstm import BCLSTM
from rate.model import RATE

Model = RATE | BCLSTM


def build(config: RateConfig) -> Model:
    """A new model."""
    return BCLSTM(config) if config.architecture == "lstm" else RATE(config)


def load(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> Model:
    """What either's ``save_pretrained`` wrote, in evaluation mode.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the configuration is not valid or does not fit the parameters.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no model folder at {folder}")
    config = RateConfig.load(folder)
    found = BCLSTM if config.architecture == "lstm" else RATE
    return found.from_pretrained(folder, device)
