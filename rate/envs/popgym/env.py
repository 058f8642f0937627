"""POPGym's tasks in encodings a model reads."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import popgym  # noqa: F401 - registers the tasks
from gymnasium import spaces


class POPGym(gymnasium.Env[Any, Any]):
    """One of POPGym's tasks.

    Observations: numbers stay as they are (``Discrete``, ``Box`` float32); several numbers at once (``MultiDiscrete``,
    ``Tuple``) become one vector of ones and zeros, uint8, one part for each. Actions: a cell of a board becomes its
    number, ``row * columns + column``; others stay. The previous action, which some tasks need beside the observation,
    is in the sequence of a model that reads actions.

    The labyrinths draw from Python's and NumPy's global generators; here each environment keeps to its own, and what
    the caller draws elsewhere is left alone. ``info`` is empty: the package's own gives hidden state away.

    Args:
        id: Gymnasium id, such as ``popgym-RepeatFirstEasy-v0``.

    Raises:
        ValueError: for an action out of range.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium does

    def __init__(self, id: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # labyrinths need no memory; bounds lose digits in float32
            self.inner: Any = gymnasium.make(id, disable_env_checker=True).unwrapped
        self._global_draws = "Labyrinth" in id
        seen, acted = self.inner.observation_space, self.inner.action_space
        self._sizes = _sizes(seen)
        self._offsets = np.cumsum([0, *self._sizes[:-1]])
        board = acted.nvec if isinstance(acted, spaces.MultiDiscrete) else None
        self._columns = 0 if board is None else int(board[1])
        self.observation_space = spaces.Box(0, 1, (sum(self._sizes),), np.uint8) if self._sizes else seen
        self.action_space = acted if board is None else spaces.Discrete(int(board.prod()))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        if self._global_draws:
            seed = int(self.np_random.integers(2**31))
            with _global_generators_kept():
                observation, _ = self.inner.reset(seed=seed)
        else:
            observation, _ = self.inner.reset(seed=seed)
        return self._encode(observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act; returns (observation, reward, terminated, truncated, info)."""
        if not self.action_space.contains(action):
            raise ValueError(f"action must be in {self.action_space}, got {action!r}")
        if self._columns:
            action = np.array(divmod(int(action), self._columns))
        elif isinstance(self.action_space, spaces.Discrete):
            action = int(action)
        observation, reward, terminated, truncated, _ = self.inner.step(action)
        return self._encode(observation), float(reward), bool(terminated), bool(truncated), {}

    def decode(self, observation: Any) -> np.ndarray:
        """The numbers behind an observation of ones and zeros, int64; other observations as they are."""
        return np.flatnonzero(observation) - self._offsets if self._sizes else np.asarray(observation)

    def _encode(self, observation: Any) -> Any:
        if not self._sizes:
            space = self.observation_space
            return np.asarray(observation, np.float32) if isinstance(space, spaces.Box) else int(observation)
        encoded = np.zeros(sum(self._sizes), np.uint8)
        encoded[self._offsets + np.asarray(observation)] = 1
        return encoded


def _sizes(space: spaces.Space[Any]) -> list[int]:
    """How many values each number of an observation can take; none where it stays as it is."""
    if isinstance(space, spaces.MultiDiscrete):
        return [int(size) for size in space.nvec]
    if isinstance(space, spaces.Tuple):
        return [int(part.n) for part in space.spaces]  # type: ignore[attr-defined]
    return []


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
