"""Named settings: ours for T-Maze, and the paper's per environment.

The paper's are Table 8 of the NeurIPS 2025 submission where it speaks; head sizes, feed-forward widths and warm-up come
from the released scripts. They use the published block, shift and training regime.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rate.training.options import ModelOptions, RunOptions, TrainingOptions


def _published(model: Mapping[str, Any], training: Mapping[str, Any], target_return: float) -> RunOptions:
    return RunOptions(
        target_return=target_return,
        model=ModelOptions(block="published", shift="transformer_xl", **model),
        training=TrainingOptions(regime="published", **training),
    )


_PAPER = {
    "paper/tmaze": _published(
        {"num_memory": 10, "gate_heads": 2, "num_layers": 8, "num_heads": 8, "d_head": 32, "d_model": 64}
        | {"segment_length": 50, "segments": 3, "d_inner": 0, "dropout": 0.2, "attention_dropout": 0.1},
        {"epochs": 200, "batch_size": 64, "lr": 1e-4, "weight_decay": 1e-3, "clip": 1.0, "warmup": 1000},
        1.0,
    ),
    "paper/vizdoom-two-colors": _published(
        {"num_memory": 15, "cache_len": 100, "gate_heads": 2, "num_layers": 6, "num_heads": 8, "d_head": 64}
        | {"d_model": 64, "segment_length": 50, "segments": 3, "d_inner": 128}
        | {"dropout": 0.2, "attention_dropout": 0.05},
        {"epochs": 150, "batch_size": 128, "lr": 3e-4, "weight_decay": 1e-3, "clip": 5.0, "warmup": 30000},
        56.5,
    ),
    "paper/memory-maze": _published(
        {"num_memory": 15, "cache_len": 360, "gate_heads": 0, "num_layers": 6, "num_heads": 8, "d_head": 64}
        | {"d_model": 64, "segment_length": 30, "segments": 3, "d_inner": 0, "image_padding": 2}
        | {"dropout": 0.5, "attention_dropout": 0.2},
        {"epochs": 80, "batch_size": 64, "lr": 3e-4, "weight_decay": 0.1, "clip": 1.0, "warmup": 1000}
        | {"beta2": 0.95, "schedule": "cosine"},
        18.1,
    ),
    "paper/minigrid-memory": _published(
        {"num_memory": 10, "cache_len": 180, "gate_heads": 4, "num_layers": 4, "num_heads": 4, "d_head": 128}
        | {"d_model": 128, "segment_length": 30, "segments": 3, "d_inner": 64}
        | {"dropout": 0.3, "attention_dropout": 0.1},
        {"epochs": 500, "batch_size": 64, "lr": 1e-4, "weight_decay": 1e-3, "clip": 5.0, "warmup": 15000},
        0.96,
    ),
    "paper/popgym": _published(
        {"num_memory": 30, "cache_len": 100, "gate_heads": 2, "num_layers": 10, "num_heads": 2, "d_model": 32}
        | {"segment_length": 18, "segments": 3, "d_inner": 0, "dropout": 0.1, "attention_dropout": 0.05},
        {"epochs": 200, "batch_size": 32, "lr": 3e-4, "weight_decay": 1e-3, "clip": 5.0, "warmup": 1000},
        1.0,
    ),
    "paper/atari": _published(
        {"num_memory": 15, "cache_len": 360, "gate_heads": 1, "num_layers": 6, "num_heads": 8, "d_head": 128}
        | {"d_model": 128, "segment_length": 30, "segments": 3, "d_inner": 0}
        | {"dropout": 0.2, "attention_dropout": 0.05},
        {"epochs": 10, "batch_size": 128, "lr": 3e-4, "weight_decay": 0.1, "clip": 1.0, "warmup": 1000}
        | {"beta2": 0.95, "schedule": "cosine"},
        180.0,
    ),
    "paper/mujoco": _published(
        {"num_memory": 5, "cache_len": 60, "gate_heads": 1, "num_layers": 3, "num_heads": 1, "d_model": 128}
        | {"segment_length": 20, "segments": 3, "d_inner": 0, "return_scale": 1000.0}
        | {"dropout": 0.2, "attention_dropout": 0.05, "normalize_observations": True},
        {"epochs": 10, "batch_size": 4096, "lr": 6e-5, "weight_decay": 0.1, "clip": 1.0, "warmup": 1000}
        | {"beta2": 0.95},
        3600.0,
    ),
}

PRESETS: dict[str, RunOptions] = {
    "default": RunOptions(),
    "tmaze": RunOptions(
        episodes=2000,
        corridor=tuple(range(1, 25)),
        eval_corridor=(4, 24, 480),
        target_return=1.0,
        model=ModelOptions(
            segment_length=5, segments=5, num_memory=5, gate_heads=1, d_model=64, num_layers=3, dropout=0.0
        ),
        training=TrainingOptions(updates=600, batch_size=64, lr=1e-3, warmup=50, schedule="cosine"),
    ),
    **_PAPER,
}
"""Every preset by name; ``default`` fits no environment in particular."""
