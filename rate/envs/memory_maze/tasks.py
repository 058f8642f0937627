"""Memory Maze in the registry."""

from rate.envs.registry import Task
from rate.envs.score import Figure, Score

_TABLE = "Table 1 (NeurIPS 2025 submission), 1000 steps"
_SUMMARY = "summary image of the published code's branch rate-old; another scale or protocol"
_LIMITS = {9: 1000, 11: 2000, 13: 3000, 15: 4000}
_FIGURES = (
    Figure("RATE", 7.64, 0.41, _TABLE),
    Figure("DT", 6.83, 0.51, _TABLE),
    Figure("RMT", 7.27, 0.21, _TABLE),
    Figure("TrXL", 7.12, 0.24, _TABLE),
    Figure("BC-LSTM", 4.75, 0.15, _TABLE),
    Figure("CQL-LSTM", 0.19, 0.02, _TABLE),
    Figure("random", 0.0, 0.0, _TABLE),
    Figure("data set", 4.69, None, _TABLE),
    Figure("RATE", 1.91, 0.10, _SUMMARY),
    Figure("DT", 1.45, 0.23, _SUMMARY),
)


def _task(size: int, limit: int) -> Task:
    return Task(
        name=f"memory-maze-{size}x{size}",
        family="memory-maze",
        summary=f"find the object of the colour asked for, again and again, in a maze of {size} x {size} cells",
        entry_point="rate.envs.memory_maze.env:MemoryMaze",
        arguments={"size": size},
        options={"max_steps": limit, "extra_observations": False},
        extra="memory-maze",
        packages=("dm_control", "labmaze", "mujoco"),
        observation="uint8 [64, 64, 3]: the view ahead, in a border of the colour asked for",
        action="6: nothing, forward, left, right, forward and left, forward and right",
        max_steps=limit,
        side_by_side=4,
        target_returns=(18.1,),
        temperature=1.0,
        score=Score("return"),
        protocol=(
            "3 runs x 100 seeds at 9 x 9, at most 1000 steps; trained on 5000 episodes of a Dreamer agent, in windows "
            "of 90 steps; actions sampled; target return 18.1"
            + ("" if size == 9 else ". The paper does not try this size")
        ),
        figures=_FIGURES if size == 9 else (),
        expert="rate.envs.memory_maze.expert:expert",
    )


TASKS = tuple(_task(size, limit) for size, limit in _LIMITS.items())
