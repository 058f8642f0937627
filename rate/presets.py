"""Named settings: ``paper`` and ``small`` for every task, and by the names of :data:`PRESETS`.

The paper's are Table 8 of the NeurIPS 2025 submission where it speaks; head sizes, feed-forward widths and warm-up come
from the released scripts. They use the published block, shift and training regime. The small ones are ours: minutes on
two CPU cores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rate.training.options import ModelOptions, RunOptions, TrainingOptions

if TYPE_CHECKING:
    from rate.envs import Task


def _published(
    model: Mapping[str, Any], training: Mapping[str, Any], target_return: float, episodes: int = 2000
) -> RunOptions:
    return RunOptions(
        target_return=target_return,
        episodes=episodes,
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
    # Sizes are those of the code's older branch; optimisation is T-Maze's, for no table names this task.
    "paper/associative-retrieval": _published(
        {"num_memory": 5, "gate_heads": 4, "num_layers": 6, "num_heads": 8, "d_model": 64}
        | {"segment_length": 30, "segments": 3, "d_inner": 0, "dropout": 0.2, "attention_dropout": 0.1},
        {"epochs": 75, "batch_size": 64, "lr": 1e-4, "weight_decay": 1e-3, "clip": 1.0, "warmup": 1000},
        1.0,
        episodes=6000,
    ),
    "paper/vizdoom-two-colors": _published(
        {"num_memory": 15, "cache_len": 100, "gate_heads": 2, "num_layers": 6, "num_heads": 8, "d_head": 64}
        | {"d_model": 64, "segment_length": 50, "segments": 3, "d_inner": 128}
        | {"dropout": 0.2, "attention_dropout": 0.05},
        {"epochs": 150, "batch_size": 128, "lr": 3e-4, "weight_decay": 1e-3, "clip": 5.0, "warmup": 30000},
        56.5,
        episodes=5000,
    ),
    "paper/memory-maze": _published(
        {"num_memory": 15, "cache_len": 360, "gate_heads": 0, "num_layers": 6, "num_heads": 8, "d_head": 64}
        | {"d_model": 64, "segment_length": 30, "segments": 3, "d_inner": 0, "image_padding": 2}
        | {"dropout": 0.5, "attention_dropout": 0.2},
        {"epochs": 80, "batch_size": 64, "lr": 3e-4, "weight_decay": 0.1, "clip": 1.0, "warmup": 1000}
        | {"beta2": 0.95, "schedule": "cosine"},
        18.1,
        episodes=5000,
    ),
    "paper/minigrid-memory": _published(
        {"num_memory": 10, "cache_len": 180, "gate_heads": 4, "num_layers": 4, "num_heads": 4, "d_head": 128}
        | {"d_model": 128, "segment_length": 30, "segments": 3, "d_inner": 64}
        | {"dropout": 0.3, "attention_dropout": 0.1},
        {"epochs": 500, "batch_size": 64, "lr": 1e-4, "weight_decay": 1e-3, "clip": 5.0, "warmup": 15000},
        0.96,
        episodes=10_000,
    ),
    "paper/popgym": _published(
        {"num_memory": 30, "cache_len": 100, "gate_heads": 2, "num_layers": 10, "num_heads": 2, "d_model": 32}
        | {"segment_length": 18, "segments": 3, "d_inner": 0, "dropout": 0.1, "attention_dropout": 0.05},
        {"epochs": 200, "batch_size": 32, "lr": 3e-4, "weight_decay": 1e-3, "clip": 5.0, "warmup": 1000},
        1.0,
        episodes=3000,
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


def _small(model: Mapping[str, Any], training: Mapping[str, Any], **run: Any) -> RunOptions:
    """Two pre-norm layers of width 64 with five memory tokens, trained through all of the memory.

    What a batch of these sizes keeps for its backward pass is no reason for memory replay's second forward pass.
    """
    base: dict[str, Any] = {
        "num_memory": 5,
        "d_model": 64,
        "num_layers": 2,
        "num_heads": 4,
        "d_inner": 128,
        "dropout": 0.0,
    }
    steps: dict[str, Any] = {"lr": 1e-3, "warmup": 50, "schedule": "cosine", "updates": 600, "replay": False}
    return RunOptions(
        model=ModelOptions(**base | dict(model)), training=TrainingOptions(**steps | dict(training)), **run
    )


# Pictures are what costs here, and an evaluation in a heavy environment is left to rate eval.
_PICTURES = {"batch_size": 16, "lr": 5e-4, "eval_every": 0}

_SMALL = {
    "small/associative-retrieval": _small({"segment_length": 5}, {}, episodes=1000, options=("length=15",)),
    "small/minigrid-memory": _small(
        {"segment_length": 5, "segments": 5},
        {
            **_PICTURES,
            "batch_size": 64,
            "lr": 1e-3,
            "updates": 2000,
        },  # about half of it before the first success
        episodes=1000,
        options=("size=13", "time_limit=96"),
    ),
    "small/popgym": _small({}, {"eval_every": 200, "eval_episodes": 50}, episodes=1000),
    "small/vizdoom": _small(
        {"segment_length": 50},
        {**_PICTURES, "batch_size": 8, "updates": 500},
        episodes=300,
        options=("max_steps=150",),
    ),
    "small/memory-maze": _small({"segment_length": 30, "cache_len": 100}, _PICTURES, episodes=50),
    "small/atari": _small({"segment_length": 10}, _PICTURES),
    "small/mujoco": _small(
        {"segment_length": 20, "return_scale": 1000.0, "normalize_observations": True},
        {"updates": 2000, "eval_every": 0},
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
        training=TrainingOptions(
            updates=600, batch_size=64, lr=1e-3, warmup=50, schedule="cosine", replay=False
        ),
    ),
    **_SMALL,
    **_PAPER,
}
"""Every preset by name; ``default`` fits no environment in particular."""

KINDS = ("small", "paper")
"""Presets that every task has; ``small`` is a task's own where none is named."""

_SHORTENED = (
    "LabyrinthEscapeMedium", "LabyrinthEscapeHard", "RepeatFirstMedium", "RepeatFirstHard", "VelocityOnlyCartpoleHard",
)  # fmt: skip
"""POPGym tasks that the paper's RATE is trained on a third of."""


def preset_of(task_name: str | None, arguments: Sequence[str]) -> RunOptions:
    """The settings that a command line starts from: ``--preset``'s, else the task's ``small``, else ``default``.

    Raises:
        ValueError: as :func:`preset_for`.
    """
    name, named_data = "small" if task_name else "default", False
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == "--preset" and (equals or index + 1 < len(arguments)):
            name = value if equals else arguments[index + 1]
        named_data |= option in ("--data", "--dataset")
    found = preset_for(task_name, name)
    # Data that are there say themselves which options of the task they were recorded with.
    return dataclasses.replace(found, options=()) if named_data else found


def preset_for(task_name: str | None, name: str) -> RunOptions:
    """The settings called ``name``; of ``paper`` and ``small`` those that fit the task.

    Raises:
        ValueError: for an unknown preset or task, or ``paper`` or ``small`` without a task.
    """
    if name in KINDS:
        if task_name is None:
            raise ValueError(
                f"--preset {name} needs a task: name it first, as in rate train tmaze --preset {name}"
            )
        from rate.envs import task

        found = _of_task(name, task(task_name))
    elif name in PRESETS:
        found = PRESETS[name]
    else:
        raise ValueError(f"--preset must be one of {', '.join((*KINDS, *PRESETS))}, got {name!r}")
    if task_name == "tmaze" and not found.corridor:
        # Every length that fits the window: the junction's step and the turn take two.
        longest = found.model.segment_length * found.model.segments - 2
        found = dataclasses.replace(found, corridor=tuple(range(1, longest + 1)), eval_corridor=(longest,))
    return found


def _of_task(kind: str, task: Task) -> RunOptions:
    """The family's preset, with the task's own target return and POPGym's own lengths."""
    names = [name for name in PRESETS if name.startswith(f"{kind}/")]
    own = "tmaze" if (kind, task.family) == ("small", "tmaze") else None
    found = PRESETS[
        own or next(name for name in names if task.name.startswith(name.removeprefix(f"{kind}/")))
    ]
    if task.family == "popgym" and task.max_steps is not None:
        parts = 9 if kind == "paper" and task.name.removeprefix("popgym-") in _SHORTENED else 3
        # Episodes of a thousand steps are more than a small run reads: its windows are of 150.
        longest = task.max_steps if kind == "paper" else min(task.max_steps, 150)
        found = dataclasses.replace(
            found, model=dataclasses.replace(found.model, segment_length=-(-longest // parts))
        )
    if kind == "paper" and task.family != "tmaze":  # its evaluations take longer than its updates
        training = dataclasses.replace(found.training, eval_every=0, checkpoint_every=1000)
        found = dataclasses.replace(found, training=training)
    return dataclasses.replace(found, target_return=task.target_returns[0])
