"""What acts while episodes are recorded: scripted experts and policies of your own."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


class Policy(Protocol):
    """Acts for all environments of a vector environment.

    For every episode ``start`` is called once, then ``act`` at each of its steps. ``act`` is called for the whole
    batch; what it gives for an environment that plays no episode is ignored.
    """

    def start(self, env_ids: np.ndarray, seeds: np.ndarray) -> None:
        """Episodes begin in the environments ``env_ids``, int64 ``[n]``.

        ``seeds``, int64 ``[n]``, are those of the episodes: a policy that draws, and draws from them alone, records
        the same episodes however many are recorded side by side, and after an interruption.
        """

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        """Actions ``[B, ...]`` for observations ``[B, ...]`` and the last step's rewards float64 ``[B]``."""


def load_policy(name: str, env: VectorEnv) -> Policy:
    """The policy called ``module:function``, made by calling the function with the vector environment.

    Raises:
        ValueError: for a name without module or function.
        ImportError: if there is no such module or no such function in it.
        TypeError: if what the function gives has no ``start`` and ``act``.
    """
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise ValueError(f"policy must be module:function, got {name!r}")
    try:
        make = getattr(import_module(module), function)
    except AttributeError:
        raise ImportError(f"policy {name}: the module {module} has no {function}") from None
    policy = make(env)
    if not (callable(getattr(policy, "start", None)) and callable(getattr(policy, "act", None))):
        raise TypeError(f"policy {name} must give an object with start and act, got {policy!r}")
    return policy


class Uniform:
    """Draws every action uniformly, from the episode's seed.

    Args:
        env: whose actions are drawn.
    """

    def __init__(self, env: VectorEnv) -> None:
        self._spaces = [copy.deepcopy(env.single_action_space) for _ in range(env.num_envs)]

    def start(self, env_ids: np.ndarray, seeds: np.ndarray) -> None:
        """See :class:`Policy`."""
        for env, seed in zip(env_ids, seeds, strict=True):
            self._spaces[env].seed(int(seed))

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        """See :class:`Policy`."""
        return np.stack([space.sample() for space in self._spaces])


def uniform(env: VectorEnv) -> Uniform:
    """The policy that draws its actions, ``rate.envs.policy:uniform``."""
    return Uniform(env)


class SideBySide:
    """A policy made of one player per environment, each a small program that plays a single episode.

    Args:
        players: one per environment; see :class:`Player`.
    """

    def __init__(self, players: list[Player]) -> None:
        self.players = players
        self._fresh = np.ones(len(players), bool)
        self._actions: list[int | np.ndarray] = []

    def start(self, env_ids: np.ndarray, seeds: np.ndarray) -> None:
        """See :class:`Policy`."""
        for env, seed in zip(env_ids, seeds, strict=True):
            self.players[env].begin(int(seed))
            self._fresh[env] = True

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        """See :class:`Policy`."""
        for env, player in enumerate(self.players):
            player.see(observations[env], None if self._fresh[env] else self._actions[env])
        self._fresh[:] = False
        self._actions = [player.act() for player in self.players]
        return np.stack(self._actions)


class Player(Protocol):
    """Plays single episodes of one environment."""

    def begin(self, seed: int) -> None:
        """An episode begins."""

    def see(self, observation: np.ndarray, action: int | np.ndarray | None) -> None:
        """The observation that followed ``action``; None before the episode's first action."""

    def act(self) -> int | np.ndarray:
        """The next action."""
