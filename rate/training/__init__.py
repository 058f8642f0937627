"""Training: options, the loop, checkpoints and metrics."""

from rate.training.options import ModelOptions, RunOptions, TrainingOptions
from rate.training.trainer import Trainer

__all__ = ["ModelOptions", "RunOptions", "Trainer", "TrainingOptions"]
