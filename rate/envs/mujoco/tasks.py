"""HalfCheetah, Hopper and Walker2d in the registry."""

from rate.envs.registry import Task
from rate.envs.score import Figure, Score

_TABLE = "Table 3 (NeurIPS 2025 submission)"
_MODELS = ("CQL", "DT", "TAP", "TT", "DMamba", "MambaDM", "RATE")
_DATA = ("medium-expert", "medium", "medium-replay")
_FIGURES = {
    "halfcheetah": (
        ((91.6, None), (86.8, 1.3), (91.8, 0.8), (95.0, 0.2), (91.9, 0.6), (86.5, 1.2), (87.4, 0.1)),
        ((44.4, None), (42.6, 0.1), (45.0, 0.1), (46.9, 0.4), (42.8, 0.1), (42.8, 0.1), (43.5, 0.3)),
        ((45.5, None), (36.6, 0.8), (40.8, 0.6), (41.9, 2.5), (39.6, 0.1), (39.1, 0.1), (39.0, 0.6)),
    ),
    "hopper": (
        ((105.4, None), (107.6, 1.8), (105.5, 1.7), (110.0, 2.7), (111.1, 0.3), (110.5, 0.3), (112.5, 0.2)),
        ((58.0, None), (67.6, 1.0), (63.4, 1.4), (61.1, 3.6), (83.5, 12.5), (85.7, 7.8), (77.4, 1.4)),
        ((95.0, None), (82.7, 7.0), (87.3, 2.3), (91.5, 3.6), (82.6, 4.6), (86.1, 2.5), (83.7, 8.2)),
    ),
    "walker2d": (
        ((108.8, None), (108.1, 0.2), (107.4, 0.9), (101.9, 6.8), (108.3, 0.5), (108.8, 0.1), (108.7, 0.5)),
        ((72.5, None), (74.0, 1.4), (64.9, 2.1), (79.0, 2.8), (78.2, 0.6), (78.2, 0.6), (80.7, 0.7)),
        ((77.2, None), (66.6, 3.0), (66.8, 3.1), (82.6, 6.9), (70.9, 4.3), (73.4, 2.6), (73.7, 1.4)),
    ),
}  # fmt: skip
"""Normalised scores by data set and model."""

_BODIES = {
    "halfcheetah": ("HalfCheetah", "run", 17, 6, (6000.0, 12000.0), (-280.178953, 12135.0)),
    "hopper": ("Hopper", "hop on one leg", 11, 3, (3600.0,), (-20.272305, 3234.3)),
    "walker2d": ("Walker2d", "walk on two legs", 17, 6, (5000.0,), (1.629008, 4592.3)),
}
"""Class, what it does, sizes of observation and action, target returns, D4RL's returns of scores 0 and 100."""


def _task(body: str) -> Task:
    name, summary, observed, acted, targets, (low, high) = _BODIES[body]
    return Task(
        name=f"mujoco-{body}",
        family="mujoco",
        summary=summary,
        entry_point=f"rate.envs.mujoco.env:{name}",
        extra="mujoco",
        packages=("mujoco",),
        options={"max_steps": 1000},
        observation=f"float64 [{observed}]: positions but the first, then velocities",
        action=f"float32 [{acted}]: torques in [-1, 1]",
        max_steps=1000,
        side_by_side=20,
        target_returns=targets,
        target_per_segment=True,
        score=Score("normalised", low, high, name="D4RL score"),
        protocol=(
            "trained on D4RL's -v2 data sets in windows of 60; each segment starts again with the target return"
            f" ({' or '.join(f'{target:g}' for target in targets)}); runs and seeds are not given. D4RL's data are of "
            "version 2 of the environment, this is version 5: the same observations, small differences in the physics"
        ),
        figures=tuple(
            Figure(model, *value, f"{_TABLE}, {data}")
            for data, values in zip(_DATA, _FIGURES[body], strict=True)
            for model, value in zip(_MODELS, values, strict=True)
        ),
        no_expert="nobody can script one: load D4RL data, or record rate.envs.mujoco.search:policy",
    )


TASKS = tuple(_task(body) for body in _BODIES)
