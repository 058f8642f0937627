"""Episodes, where they come from, and the spaces they live in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

Role = Literal["observation", "action"]

_SUPPORTED = {
    "observation": "1-D Box, rank-3 uint8 Box or Discrete",
    "action": "1-D Box or Discrete",
}


@dataclass(frozen=True)
class SpaceSpec:
    """A space of observations or actions, as the model sees it.

    Args:
        kind: "vector", "image" or "discrete" for observations, "continuous" or "discrete" for actions.
        shape: of one value: ``(size,)``, ``(C, H, W)`` for images, ``()`` for discrete.
        n: number of discrete values, else None.
        start: smallest discrete value.
        channels_last: the environment and its files hold images as ``(H, W, C)``.
        low: smallest lower bound of a Box, None if it has an infinite one.
        high: largest upper bound of a Box, None if it has an infinite one.
    """

    kind: Literal["vector", "image", "discrete", "continuous"]
    shape: tuple[int, ...]
    n: int | None = None
    start: int = 0
    channels_last: bool = False
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_space(cls, space: Any, role: Role) -> SpaceSpec:
        """The specification of a Gymnasium space.

        In an image space the smaller of the first and the last dimension is taken for the channels, the last
        one if they are equal.

        Raises:
            TypeError: for a space that is not supported in this role.
        """
        from gymnasium import spaces

        if isinstance(space, spaces.Discrete):
            return cls("discrete", (), n=int(space.n), start=int(space.start))
        if isinstance(space, spaces.Box):
            low = float(space.low.min()) if np.isfinite(space.low).all() else None
            high = float(space.high.max()) if np.isfinite(space.high).all() else None
            if len(space.shape) == 1:
                kind: Literal["vector", "continuous"] = "vector" if role == "observation" else "continuous"
                return cls(kind, space.shape, low=low, high=high)
            if len(space.shape) == 3 and space.dtype == np.uint8 and role == "observation":
                first, second, third = space.shape
                last = third <= first
                shape = (third, first, second) if last else space.shape
                return cls("image", shape, channels_last=last, low=low, high=high)
        raise TypeError(f"{role} space {space} is not supported, expected {_SUPPORTED[role]}")

    def to_space(self) -> Any:
        """A Gymnasium space that :meth:`from_space` reads as this one."""
        from gymnasium import spaces

        if self.kind == "discrete":
            return spaces.Discrete(self.n or 0, start=self.start)
        if self.kind == "image":
            channels, height, width = self.shape
            shape = (height, width, channels) if self.channels_last else self.shape
            return spaces.Box(0, 255, shape, np.uint8)
        unbounded = self.low is None or self.high is None
        low, high = (-np.inf, np.inf) if unbounded else (self.low, self.high)
        return spaces.Box(low, high, self.shape, np.float32)  # type: ignore[arg-type]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of values in a batch: float32, uint8 for images, int64 for discrete."""
        return np.dtype({"image": np.uint8, "discrete": np.int64}.get(self.kind, np.float32))

    def convert(self, values: Any) -> np.ndarray:
        """Values ``[T, ...]`` of the environment or its files, as episodes hold them.

        Images get their channels first, numbers get :attr:`dtype` where that loses nothing but precision.
        What does not fit is left as it is, for :func:`rate.data.check_episode` to name.
        """
        array = np.asarray(values)
        if self.kind == "image":
            turn = self.channels_last and array.ndim == 4
            return np.ascontiguousarray(np.moveaxis(array, -1, 1)) if turn else array
        if self.kind == "discrete":
            if array.ndim == 2 and array.shape[1] == 1:
                array = array[:, 0]
            return array.astype(np.int64) if array.dtype.kind in "iub" else array
        with np.errstate(over="ignore"):
            return array.astype(np.float32) if array.dtype.kind in "iubf" else array


@dataclass(frozen=True, eq=False)
class Episode:
    """What happened in one episode of T steps.

    Args:
        observations: ``[T, *shape]`` float32, uint8 (images, channels first) or int64; the one after the last
            action is not kept.
        actions: ``[T]`` int64 or ``[T, A]`` float32.
        rewards: ``[T]`` float32.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray

    @property
    def length(self) -> int:
        """T, the number of steps."""
        return len(self.rewards)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.observations.nbytes + self.actions.nbytes + self.rewards.nbytes

    @cached_property
    def returns_to_go(self) -> np.ndarray:
        """``[T]`` float32: the sum of the rewards from each step on, undiscounted."""
        sums = np.cumsum(self.rewards[::-1], dtype=np.float64)[::-1]
        return sums.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Recording:
    """One episode as an environment gave it, for writing.

    Args:
        observations: ``[T + 1, ...]`` in the environment's own layout, with the one after the last action.
        actions: ``[T]`` or ``[T, A]``.
        rewards: ``[T]``.
        terminated: the last step ended the episode by the task's rules.
        truncated: the last step ended it by a time limit.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool = True
    truncated: bool = False

    def episode(self, observation_space: SpaceSpec, action_space: SpaceSpec) -> Episode:
        """The same as an :class:`Episode`, not checked."""
        return Episode(
            observation_space.convert(self.observations[: len(self.rewards)]),
            action_space.convert(self.actions),
            np.asarray(self.rewards, dtype=np.float32),
        )


class EpisodeSource(Protocol):
    """A collection of episodes, in memory or read when asked for.

    ``lengths`` is int64 ``[N]``, known without reading the episodes.
    """

    @property
    def observation_space(self) -> SpaceSpec: ...

    @property
    def action_space(self) -> SpaceSpec: ...

    @property
    def lengths(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Episode: ...


class InMemoryEpisodes:
    """Episodes held in memory, all checked at once.

    Args:
        episodes: with observations in the layout of ``observation_space.shape`` (images channels first).
        observation_space: of every episode.
        action_space: of every episode.

    Raises:
        ValueError: from :func:`rate.data.check_episode`.
    """

    def __init__(
        self, episodes: Sequence[Episode], observation_space: SpaceSpec, action_space: SpaceSpec
    ) -> None:
        from rate.data.validate import check_episode

        for index, episode in enumerate(episodes):
            check_episode(episode, index, observation_space, action_space)
        self.observation_space, self.action_space = observation_space, action_space
        self.lengths = np.array([episode.length for episode in episodes], dtype=np.int64)
        self._episodes = list(episodes)

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> Episode:
        return self._episodes[index]
