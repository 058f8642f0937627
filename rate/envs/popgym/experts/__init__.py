"""Scripted experts of POPGym's tasks: one player per kind of task.

A player is told what an agent is told: observations, its own actions, and constants of the task (decks, board sizes,
numbers of mines, ships, noise). None reads hidden state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rate.envs.policy import SideBySide
from rate.envs.popgym.experts.base import TaskPlayer
from rate.envs.popgym.experts.boards import BattleshipPlayer, MineSweeperPlayer
from rate.envs.popgym.experts.cards import (
    AutoencodePlayer,
    ConcentrationPlayer,
    CountRecallPlayer,
    HigherLowerPlayer,
    MultiarmedBanditPlayer,
    RepeatFirstPlayer,
    RepeatPreviousPlayer,
)
from rate.envs.popgym.experts.cartpole import (
    NoisyPositionOnlyCartPolePlayer,
    PositionOnlyCartPolePlayer,
    VelocityOnlyCartPolePlayer,
)
from rate.envs.popgym.experts.labyrinth import LabyrinthEscapePlayer, LabyrinthExplorePlayer
from rate.envs.popgym.experts.pendulum import NoisyPositionOnlyPendulumPlayer, PositionOnlyPendulumPlayer

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

PLAYERS: dict[str, type[TaskPlayer]] = {
    "Autoencode": AutoencodePlayer,
    "Battleship": BattleshipPlayer,
    "Concentration": ConcentrationPlayer,
    "CountRecall": CountRecallPlayer,
    "HigherLower": HigherLowerPlayer,
    "LabyrinthEscape": LabyrinthEscapePlayer,
    "LabyrinthExplore": LabyrinthExplorePlayer,
    "MineSweeper": MineSweeperPlayer,
    "MultiarmedBandit": MultiarmedBanditPlayer,
    "NoisyPositionOnlyCartPole": NoisyPositionOnlyCartPolePlayer,
    "NoisyPositionOnlyPendulum": NoisyPositionOnlyPendulumPlayer,
    "PositionOnlyCartPole": PositionOnlyCartPolePlayer,
    "PositionOnlyPendulum": PositionOnlyPendulumPlayer,
    "RepeatFirst": RepeatFirstPlayer,
    "RepeatPrevious": RepeatPreviousPlayer,
    "VelocityOnlyCartPole": VelocityOnlyCartPolePlayer,
}
"""By the name of the task's class without its level."""


def expert(env: VectorEnv) -> SideBySide:
    """The expert for a vector environment of one of the tasks.

    Raises:
        ValueError: if the environments run in other processes, where their constants are out of reach.
    """
    copies = getattr(env, "envs", None)
    if copies is None:
        raise ValueError("env must hold its environments in this process: these take microseconds a step")
    players: list[TaskPlayer] = []
    for copy in copies:
        name = type(copy.unwrapped.inner).__name__
        for level in ("Easy", "Medium", "Hard"):
            name = name.removesuffix(level)
        players.append(PLAYERS[name](copy.unwrapped))
    return SideBySide(list(players))
