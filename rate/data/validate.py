"""The check every episode passes once, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from rate.data.episodes import Episode, SpaceSpec


def check_episode(
    episode: Episode,
    index: int,
    observation_space: SpaceSpec,
    action_space: SpaceSpec,
    names: tuple[str, str, str] = ("observations", "actions", "rewards"),
) -> None:
    """Checks lengths, shapes, number types, ranges and finiteness of an episode.

    Args:
        episode: as :class:`Episode` describes it.
        index: its number, for the message.
        observation_space: that it should fit.
        action_space: that it should fit.
        names: of observations, actions and rewards, for the message.

    Raises:
        ValueError: one line with the episode's number and, where one value is at fault, its step.
    """
    with _named(index):
        _check_rewards(names[2], episode.rewards)
        for name, values, space in (
            (names[0], episode.observations, observation_space),
            (names[1], episode.actions, action_space),
        ):
            _check_values(name, values, space, len(episode.rewards), names[2])


def check_actions_and_rewards(
    actions: np.ndarray,
    rewards: np.ndarray,
    index: int,
    action_space: SpaceSpec,
    names: tuple[str, str, str] = ("observations", "actions", "rewards"),
) -> None:
    """What :func:`check_episode` checks of an episode's actions and rewards."""
    with _named(index):
        _check_rewards(names[2], rewards)
        _check_values(names[1], actions, action_space, len(rewards), names[2])


@contextmanager
def _named(index: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"episode {index}: {error}") from None


def _check_rewards(name: str, rewards: np.ndarray) -> None:
    if rewards.ndim != 1:
        raise ValueError(f"{name} must be [T], got {list(rewards.shape)}")
    if rewards.dtype.kind not in "iubf":
        raise ValueError(f"{name} must be real numbers, got {rewards.dtype}")
    if not len(rewards):
        raise ValueError("has no steps, expected at least one")
    _check_finite(name, rewards)


def _check_values(name: str, values: np.ndarray, space: SpaceSpec, length: int, rewards: str) -> None:
    if values.ndim == 0 or values.shape[1:] != space.shape:
        expected = ", ".join(["T", *map(str, space.shape)])
        raise ValueError(f"{name} must be [{expected}], got {list(values.shape)}")
    if len(values) != length:
        raise ValueError(f"{name} hold {len(values)} steps, expected {length} as there are {rewards}")
    kinds, expected = {
        "image": ("u", "uint8"),
        "discrete": ("iu", "integers"),
    }.get(space.kind, ("iubf", "real numbers"))
    if values.dtype.kind not in kinds or (space.kind == "image" and values.dtype != np.uint8):
        raise ValueError(f"{name} must be {expected}, got {values.dtype}")
    if space.kind == "discrete":
        _check_range(name, values, space)
    else:
        _check_finite(name, values)


def _check_range(name: str, values: np.ndarray, space: SpaceSpec) -> None:
    last = space.start + (space.n or 0) - 1
    wrong = (values < space.start) | (values > last)
    if wrong.any():
        step = int(wrong.argmax())
        raise ValueError(f"{name} contain {values[step]} at step {step}, expected {space.start} to {last}")


def _check_finite(name: str, values: np.ndarray) -> None:
    if values.dtype.kind != "f":
        return
    finite = np.isfinite(values)
    if not finite.all():
        step = int((~finite).reshape(len(values), -1).any(1).argmax())
        found = "NaN" if np.isnan(values[step]).any() else "infinity"
        raise ValueError(f"{name} contain {found} at step {step}")
