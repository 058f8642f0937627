"""ViZDoom Two-Colors in the registry."""

from rate.envs.registry import Task
from rate.envs.score import Figure, Score

_TABLE = "Table 5 (NeurIPS 2025 submission)"
_SUMMARY = "summary image of the published code's branch rate-old"
_PARTS = {"": "", "red": ", red pillar", "green": ", green pillar"}


def _figures(source: str, model: str, **values: tuple[float, float]) -> tuple[Figure, ...]:
    """Of all episodes, of those with a red pillar, of those with a green one."""
    return tuple(
        Figure(model, *values[part or "total"], source + words, part=part) for part, words in _PARTS.items()
    )


TASKS = (
    Task(
        name="vizdoom-two-colors",
        family="vizdoom",
        summary="see a pillar's colour, then live on gems of that colour in a room of acid",
        entry_point="rate.envs.vizdoom.env:TwoColors",
        extra="vizdoom",
        packages=("vizdoom", "cv2"),
        options={"max_steps": 2100, "frame_skip": 2, "cue_tics": 90},
        observation="uint8 [3, 64, 112]: the view ahead",
        action="5: turn left, turn right, forward, left and forward, right and forward",
        max_steps=2100,
        target_returns=(56.5,),
        side_by_side=10,
        temperature=1.0,
        score=Score("return"),
        protocol=(
            "6 runs x 100 seeds; trained on 5000 episodes cut at 90 or 150 steps, tried for at most 2100 steps (4200 "
            "tics); actions sampled; target return 56.5. Our scenario and our expert's data are not the published "
            "ones: the same rules, another level file"
        ),
        figures=(
            *_figures(_TABLE, "RATE", total=(41.5, 1.0), red=(38.2, 5.1), green=(44.7, 5.8)),
            *_figures(_TABLE, "DT", total=(24.8, 1.4), red=(7.2, 0.4), green=(42.3, 3.3)),
            *_figures(_TABLE, "OracleDT", total=(56.5, 0.8), red=(55.3, 1.6), green=(57.2, 0.5)),
            *_figures(_SUMMARY, "RATE", total=(39.22, 5.83), red=(42.16, 4.67), green=(36.29, 8.88)),
            *_figures(_SUMMARY, "DT", total=(21.55, 2.86), red=(6.71, 0.65), green=(36.38, 5.70)),
        ),
        expert="rate.envs.vizdoom.expert:expert",
    ),
)
