"""POPGym's 48 tasks in the registry."""

from rate.envs.popgym.figures import figures
from rate.envs.registry import Task
from rate.envs.score import Score

_SUIT = "a suit, one of 4"
_POSITIONS = "float32 [2]: cart position, pole angle"

# Name: what it asks, observation, action, longest episodes of Easy, Medium and Hard.
_KINDS: dict[str, tuple[str, str, str, tuple[int, int, int]]] = {
    "Autoencode": (
        "watch a deck of cards, then play it back in reverse",
        "uint8 [6]: mode (play, watch) and suit, one-hot",
        _SUIT,
        (103, 207, 311),
    ),
    "Battleship": (
        "sink ships on a hidden board, told only hit or miss",
        "hit or miss, one of 2",
        "a cell of the 8 x 8, 10 x 10 or 12 x 12 board",
        (64, 100, 144),
    ),
    "Concentration": (
        "turn cards two by two and find the pairs",
        "uint8 [156], [312] or [728]: what each card of the table shows, one-hot",
        "a card, one of 52, 104 or 52",
        (104, 208, 104),
    ),
    "CountRecall": (
        "say how often the card asked for has been dealt",
        "uint8 [4], [8] or [26]: card dealt and card asked for, one-hot",
        "a count, one of 27, 27 or 17",
        (51, 103, 207),
    ),
    "HigherLower": (
        "guess whether the next card is higher or lower, counting those gone",
        "a rank, one of 13",
        "2: higher, lower",
        (51, 103, 155),
    ),
    "LabyrinthEscape": (
        "find the exit of a maze seen three cells wide",
        "uint8 [50]: the 3 x 3 cells around and the last action, one-hot",
        "4: left, right, up, down",
        (1023, 1023, 1023),
    ),
    "LabyrinthExplore": (
        "visit every cell of a maze seen three cells wide",
        "uint8 [50]: the 3 x 3 cells around and the last action, one-hot",
        "4: left, right, up, down",
        (1023, 1023, 1023),
    ),
    "MineSweeper": (
        "open every cell without a mine, told one cell's number at a time",
        "mines around the cell opened, one of 3, 7 or 10",
        "a cell of the 4 x 4, 6 x 6 or 8 x 8 board",
        (14, 30, 54),
    ),
    "MultiarmedBandit": (
        "find and play the best of the arms",
        "paid or not, one of 2",
        "an arm, one of 10, 20 or 30",
        (200, 400, 600),
    ),
    "NoisyPositionOnlyCartPole": (
        "balance a pole, positions seen through noise of 0.1, 0.2 or 0.3",
        _POSITIONS,
        "2: left, right",
        (200, 200, 200),
    ),
    "NoisyPositionOnlyPendulum": (
        "swing a pendulum up, its angle seen through noise of 0.1, 0.2 or 0.3",
        "float32 [2]: cosine and sine of the angle",
        "torque in [-2, 2]",
        (200, 200, 200),
    ),
    "PositionOnlyCartPole": (
        "balance a pole without seeing velocities",
        _POSITIONS,
        "2: left, right",
        (200, 400, 600),
    ),
    "PositionOnlyPendulum": (
        "swing a pendulum up without seeing its velocity",
        "float32 [2]: cosine and sine of the angle",
        "torque in [-2, 2]",
        (200, 150, 100),
    ),
    "RepeatFirst": ("name the first card at every step", _SUIT, _SUIT, (51, 415, 831)),
    "RepeatPrevious": (
        "name the card of 4, 32 or 64 cards ago, the newest counted",
        _SUIT,
        _SUIT,
        (51, 103, 155),
    ),
    "VelocityOnlyCartpole": (
        "balance a pole without seeing positions",
        "float32 [2]: velocities of cart and pole (positions in the first observation)",
        "2: left, right",
        (200, 400, 600),
    ),
}

_CHANGED = {
    "CountRecall": " (26, 26 and 16 actions, so that the largest count had no answer)",
    "MineSweeper": " (episodes were cut at another step)",
}


def _task(kind: str, level: str, longest: int) -> Task:
    summary, observation, action, _ = _KINDS[kind]
    changed = f"; its figures are of popgym 1.0.6{_CHANGED[kind]}" if kind in _CHANGED else ""
    return Task(
        name=f"popgym-{kind}{level}",
        family="popgym",
        summary=summary,
        entry_point="rate.envs.popgym.env:POPGym",
        arguments={"id": f"popgym-{kind}{level}-v0"},
        extra="popgym",
        packages=("popgym", "mazelib") if kind.startswith("Labyrinth") else ("popgym",),
        observation=observation,
        action=action,
        max_steps=longest,
        target_returns=(1.0,),
        temperature=1.0,
        score=Score("return"),
        protocol=f"3 runs x 100 seeds; actions sampled; target return 1; best return 1{changed}",
        figures=figures(f"{kind}{level}"),
        expert="rate.envs.popgym.experts:expert",
    )


TASKS = tuple(
    _task(kind, level, longest)
    for kind, (*_, lengths) in _KINDS.items()
    for level, longest in zip(("Easy", "Medium", "Hard"), lengths, strict=True)
)
