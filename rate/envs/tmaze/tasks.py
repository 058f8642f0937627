"""T-Maze in the registry."""

from rate.envs.registry import Task
from rate.envs.score import Figure, Score

_TABLE = "Table 5 (NeurIPS 2025 submission)"
_MRV = "Table 6 (NeurIPS 2025 submission), trained on up to 150 steps"


def _at(steps: int, model: str, value: float, spread: float, source: str) -> Figure:
    """The paper counts steps, corridor and turn together: a corridor of T - 2 cells."""
    return Figure(model, value, spread, source, at=steps - 2)


TASKS = (
    Task(
        name="tmaze",
        family="tmaze",
        summary="see a hint at the first step, walk a corridor, turn the way the hint said",
        entry_point="rate.envs.tmaze:TMaze",
        vector_entry_point="rate.envs.tmaze.vector:make",
        env_id="rate/TMaze-v0",
        options={"corridor_length": 9, "noise": True, "penalty": 0.0, "hint_steps": 1, "goal_reward": 1.0},
        observation="float32 [4]: side of the turn, hint (first step only), junction flag, noise",
        action="4: right, up, left, down",
        max_steps=None,  # corridor_length + 2
        target_returns=(1.0,),
        side_by_side=1000,
        score=Score("success"),
        axis="corridor_length",
        protocol=(
            "4 runs x 100 seeds, half of the goals up and half down; trained on episodes of T steps, tried at up to "
            "9600; the most likely action; target return 1"
        ),
        figures=(
            _at(90, "RATE", 1.00, 0.00, _TABLE),
            _at(90, "DT", 1.00, 0.00, _TABLE),
            _at(480, "RATE", 0.90, 0.07, _TABLE),
            _at(480, "DT", 0.50, 0.00, _TABLE),
            _at(900, "RATE", 0.90, 0.07, _TABLE),
            _at(900, "DT", 0.50, 0.00, _TABLE),
            _at(150, "RATE", 1.00, 0.00, _MRV),
            _at(150, "RATE without gate", 1.00, 0.00, _MRV),
            _at(360, "RATE", 0.95, 0.05, _MRV),
            _at(360, "RATE without gate", 0.66, 0.08, _MRV),
            _at(600, "RATE", 0.90, 0.07, _MRV),
            _at(600, "RATE without gate", 0.65, 0.07, _MRV),
            _at(900, "RATE without gate", 0.61, 0.07, _MRV),
        ),
        expert="rate.envs.tmaze.expert:expert",
    ),
)
