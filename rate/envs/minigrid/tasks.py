"""Minigrid-Memory in the registry."""

from rate.envs.registry import Task
from rate.envs.score import Figure, Score

_SUMMARY = "summary image of the published code's branch rate-old; the kind of score is not stated"
_NOTEBOOK = "stored notebook output of the published code's branch rate-old, 3 runs; not a table of the paper"
_CQL = {
    11: (0.52, 0.18), 21: (0.52, 0.17), 31: (0.43, 0.18), 41: (0.40, 0.20), 51: (0.39, 0.21),
    61: (0.34, 0.20), 71: (0.32, 0.20), 81: (0.28, 0.18), 91: (0.24, 0.16),
}  # fmt: skip

TASKS = (
    Task(
        name="minigrid-memory",
        family="minigrid",
        summary="see an object in a room, go to the same one at the end of a corridor",
        entry_point="rate.envs.minigrid.env:MinigridMemory",
        extra="minigrid",
        packages=("minigrid",),
        options={
            "size": 41,
            "random_length": True,
            "max_steps": 845,
            "time_limit": 500,
            "agent_view_size": 3,
            "tile_size": 28,
        },
        observation="uint8 [3, 84, 84]: the 3 x 3 cells in front of the agent, 28 pixels each",
        action="3: turn left, turn right, forward",
        max_steps=500,
        target_returns=(0.96,),
        temperature=1.0,
        score=Score("success"),
        axis="size",
        protocol=(
            "3 runs x 100 seeds; trained on 41 x 41 grids, episodes of at most 96 steps; tried on 11 x 11 to "
            "501 x 501, at most 500 steps; actions sampled; target return 0.96. The paper's figure 7 prints no numbers"
        ),
        figures=(
            Figure("RATE", 0.73, 0.07, _SUMMARY, at=31),
            Figure("DT", 0.35, 0.02, _SUMMARY, at=31),
            Figure("RATE", 0.63, 0.08, _SUMMARY, at=61),
            Figure("DT", 0.17, 0.02, _SUMMARY, at=61),
            *(Figure("CQL", value, spread, _NOTEBOOK, at=size) for size, (value, spread) in _CQL.items()),
        ),
        expert="rate.envs.minigrid.expert:expert",
    ),
)
