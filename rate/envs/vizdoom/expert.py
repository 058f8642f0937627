"""The scripted expert of Two-Colors: it sees the pillar in the image, and the gems through walls and behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rate.envs.vizdoom.env import (
    FORWARD,
    LEFT,
    LEFT_FORWARD,
    RIGHT,
    RIGHT_FORWARD,
    Surroundings,
)

if TYPE_CHECKING:
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

_THRUST, _FRICTION = 0.78125, 0.90625
"""What a tic of walking adds to the velocity (map units a tic), and what a tic leaves of it."""
_TURN, _FIRST_TURN, _FIRST_TICS = 3.516, 1.758, 5
"""Degrees a tic, and how slow and how long a turn begins."""
_REACH = 36.0
"""A gem is taken when it is nearer than this along both axes: the player's radius and the gem's."""
_WALL = 624.0
"""How far from the middle the walls let the player come."""
_TURNS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26)
"""Lengths of the turns that are weighed, in steps: with one, also the rest of it after ``_KEEP`` steps."""
_KEEP = 4
"""Steps done of a plan before plans are weighed again."""
_HORIZON = 40
"""Steps looked ahead."""
_DISCOUNT = 0.97
_DREAD = 2.0
"""How much worse a wrong gem is than a right one is good."""


class TwoColorsExpert:
    """Weighs turns of several lengths, each followed by walking on, by the gems they would take, and begins the best.

    The colour comes from the first image alone. Where the gems are is known without seeing them (privileged), how the
    player moves is the engine's rule.

    Args:
        env: of Two-Colors environments, in this process or in others.
    """

    def __init__(self, env: SyncVectorEnv | AsyncVectorEnv) -> None:
        self.env = env
        tics = int(env.get_attr("frame_skip")[0])
        self._plans = Plans(tics)
        self._fresh = np.zeros(env.num_envs, bool)
        self._red = np.zeros(env.num_envs, bool)
        self._turned = np.zeros(env.num_envs, np.int64)
        self._next: list[list[int]] = [[] for _ in range(env.num_envs)]

    def start(self, env_ids: np.ndarray, seeds: np.ndarray) -> None:
        """See :class:`rate.envs.Policy`."""
        for index in env_ids:
            self._fresh[index], self._turned[index], self._next[index] = True, 0, []

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        """Actions int64 ``[B]`` for images uint8 ``[B, 3, 64, 112]``."""
        for index in np.flatnonzero(self._fresh).tolist():
            self._red[index] = pillar_is_red(observations[index])
        self._fresh[:] = False
        if not all(self._next):
            for index, seen in enumerate(self.env.call("surroundings")):
                if seen is None:  # no episode
                    self._next[index] = [FORWARD]
                elif not self._next[index]:
                    red, turned = bool(self._red[index]), int(self._turned[index])
                    self._next[index] = self._plans.best(seen, red, turned)
        actions = np.array([steps.pop(0) for steps in self._next])
        self._turned = np.where(actions == FORWARD, 0, self._turned + self._plans.tics)
        return actions


class Plans:
    """Plans of ``_HORIZON`` steps: a turn, standing or walking, then straight on.

    Args:
        tics: of a step.
    """

    def __init__(self, tics: int) -> None:
        self.tics = tics
        turns = [(action, steps) for action in (LEFT, RIGHT, LEFT_FORWARD, RIGHT_FORWARD) for steps in _TURNS]
        self._actions = np.full((len(turns) + 1, _HORIZON), FORWARD)
        for plan, (action, steps) in enumerate(turns, start=1):
            self._actions[plan, :steps] = action
        actions = self._actions.repeat(tics, axis=1)
        self._turn = 1.0 * np.isin(actions, (LEFT, LEFT_FORWARD)) - np.isin(actions, (RIGHT, RIGHT_FORWARD))
        self._walks = ~np.isin(actions, (LEFT, RIGHT))
        time = np.arange(_HORIZON * tics)
        # A push at one tic moves the player at this one and, less and less, at all later ones.
        since = time - time[:, None]
        glide = (1 - _FRICTION ** np.maximum(since + 1, 0)) / (1 - _FRICTION)
        self._glide = np.where(since >= 0, glide, 0.0) * _THRUST
        self._drift = (1 - _FRICTION ** (time + 1)) / (1 - _FRICTION)
        self._worth = _DISCOUNT ** (np.arange(_HORIZON) + 1)

    def best(self, seen: Surroundings, red: bool, turned: int) -> list[int]:
        """The first actions of the plan that takes most gems of one colour and fewest of the other.

        Args:
            seen: now.
            red: whether red gems are wanted, or green ones.
            turned: tics that the player has been turning for.
        """
        right, wrong = (seen.red, seen.green) if red else (seen.green, seen.red)
        # A gem that fell on the player is taken with the first step anyhow: putting that off gains nothing.
        wrong = wrong[np.abs(wrong - seen.position).max(-1) >= _REACH]
        path = self._path(seen, turned)
        moves = np.abs(np.diff(path, axis=1)).sum(-1) > 0.1  # who stands takes nothing
        good, taken = self._gems(path[:, 1:], moves, right)
        bad, _ = self._gems(path[:, 1:], moves, wrong)
        left = np.abs(path[:, -1, None] - right).max(-1) / (_TURN_WALK * self.tics)
        nearest = np.where(taken, np.inf, left).min(1, initial=np.inf)
        value = good - _DREAD * bad + self._worth[-1] * _DISCOUNT**nearest
        return self._actions[value.argmax(), :_KEEP].tolist()

    def _path(self, seen: Surroundings, turned: int) -> np.ndarray:
        """The position now and at the end of each step, ``[plans, 1 + _HORIZON, 2]``."""
        speed = np.where(turned + np.arange(self._turn.shape[1]) < _FIRST_TICS, _FIRST_TURN, _TURN)
        angle = np.radians(seen.angle + np.cumsum(self._turn * speed, axis=1))
        push = np.stack([np.cos(angle), np.sin(angle)]) * self._walks
        moved = push @ self._glide + (seen.velocity[:, None] * self._drift)[:, None]
        path = np.pad(np.moveaxis(moved[..., self.tics - 1 :: self.tics], 0, -1), ((0, 0), (1, 0), (0, 0)))
        return np.clip(path + seen.position, -_WALL, _WALL)

    def _gems(self, path: np.ndarray, moves: np.ndarray, gems: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Worth of the gems taken along each path, float64 ``[plans]``, and which they are, bool ``[plans, n]``."""
        touched = (np.abs(path[:, :, None] - gems) < _REACH).all(-1) & moves[:, :, None]
        taken = touched.any(1)
        return (self._worth[touched.argmax(1)] * taken).sum(1), taken


_TURN_WALK = _THRUST / (1 - _FRICTION)
"""Map units a tic, walking straight on."""


def pillar_is_red(observation: np.ndarray) -> bool:
    """Whether the pillar in the middle of an episode's first image, uint8 ``[3, 64, 112]``, is red."""
    pillar = observation[:2, 24:36, 54:58].astype(np.int64).sum((1, 2))
    return bool(pillar[0] > pillar[1])


def expert(env: SyncVectorEnv | AsyncVectorEnv) -> TwoColorsExpert:
    """The expert for a vector environment."""
    return TwoColorsExpert(env)
