"""The paper's four Atari games in the registry."""

from rate.envs.registry import Task
from rate.envs.score import Figure, Score

_TABLE = "Table 4 (NeurIPS 2025 submission)"

_FIGURES = {
    "breakout": {
        "RATE": (111.0, 2.9),
        "DT": (76.9, 27.3),
        "CQL": (62.5, None),
        "BC": (42.8, None),
        "DMamba": (70.6, 9.3),
        "MambaDM": (106.9, 5.8),
    },
    "qbert": {
        "RATE": (12486.9, 280.4),
        "DT": (2215.8, 1523.7),
        "CQL": (14013.2, None),
        "BC": (2862.0, None),
        "DMamba": (5786.0, 1295.2),
        "MambaDM": (10052.5, 1116.5),
    },
    "seaquest": {
        "RATE": (1037.9, 53.7),
        "DT": (1129.3, 189.0),
        "CQL": (782.2, None),
        "BC": (992.1, None),
        "DMamba": (992.1, 57.7),
        "MambaDM": (1286.0, 42.0),
    },
    "pong": {
        "RATE": (18.8, 0.3),
        "DT": (17.1, 2.9),
        "CQL": (18.8, None),
        "BC": (6.4, None),
        "DMamba": (1.6, 15.3),
        "MambaDM": (18.4, 0.8),
    },
}
"""Raw scores; the paper copies all but RATE's from the models' own papers."""

_GAMES = {
    "breakout": ("Breakout", 4, 180.0, (1.7, 30.5)),
    "qbert": ("Q*bert", 6, 14000.0, (163.9, 13455.0)),
    "seaquest": ("Seaquest", 18, 1150.0, (68.4, 42054.7)),
    "pong": ("Pong", 6, 20.0, (-20.7, 14.6)),
}
"""Title, actions, target return, and the returns of a random player and of a human as the literature has them."""


def _task(game: str) -> Task:
    title, actions, target, (low, high) = _GAMES[game]
    return Task(
        name=f"atari-{game}",
        family="atari",
        summary=f"play {title}",
        entry_point="rate.envs.atari.env:Atari",
        arguments={"game": game},
        options={"sticky": 0.25, "max_steps": 27_000},
        extra="atari",
        packages=("ale_py", "cv2"),
        observation="uint8 [4, 84, 84]: the latest four views in grey, oldest first",
        action=f"{actions}: the game's own, in the emulator's order",
        max_steps=27_000,
        target_returns=(target,),
        temperature=1.0,
        score=Score("return"),
        more_scores=(Score("normalised", low, high, name="human-normalised"),),
        protocol=(
            "trained on 500 thousand of the 50 million steps of the DQN replay data set, in windows of 90; target "
            f"return {target:g} (branch rate-old); runs and seeds are not given. Rewards in the data set are clipped "
            "to [-1, 1], those of the environment and the figures are points"
        ),
        figures=tuple(Figure(model, *value, _TABLE) for model, value in _FIGURES[game].items()),
        no_expert="nobody wrote one: load a DQN replay, or record rate.envs.policy:uniform",
    )


TASKS = tuple(_task(game) for game in _GAMES)
