"""T-Maze episodes of the scripted expert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rate.data.episodes import InMemoryEpisodes, Recording, SpaceSpec

_ENVS = 256
"""Mazes walked at once; even, so that goals balance."""


def tmaze_episodes(
    num_episodes: int, corridor_lengths: int | Sequence[int], seed: int = 0
) -> InMemoryEpisodes:
    """Expert episodes, half of them with the goal above and half below (one more above if the number is odd).

    Args:
        num_episodes: at least 1.
        corridor_lengths: one, or several of which each episode gets one with equal chance. An episode in a
            corridor of length L has L + 1 steps.
        seed: of lengths and noise; the same arguments give the same episodes.

    Returns:
        Episodes with float32 observations ``[T, 4]`` and the actions 0 right, 1 up, 2 left, 3 down.

    Raises:
        ValueError: for an argument out of range.
        RuntimeError: if the expert fails an episode.
    """
    from rate.envs import TMazeVector

    maze = TMazeVector(1)
    observation_space = SpaceSpec.from_space(maze.single_observation_space, "observation")
    action_space = SpaceSpec.from_space(maze.single_action_space, "action")
    recordings = tmaze_recordings(num_episodes, corridor_lengths, seed)
    episodes = [recording.episode(observation_space, action_space) for recording in recordings]
    return InMemoryEpisodes(episodes, observation_space, action_space)


def tmaze_recordings(
    num_episodes: int, corridor_lengths: int | Sequence[int], seed: int = 0
) -> Iterator[Recording]:
    """The episodes of :func:`tmaze_episodes` with their last observations, made as they are asked for.

    Arguments and errors are those of :func:`tmaze_episodes`; arguments are checked at once.
    """
    choices = np.atleast_1d(np.asarray(corridor_lengths))
    if choices.dtype.kind not in "iu" or choices.ndim != 1 or choices.min(initial=1) < 1:
        raise ValueError(f"corridor_lengths must be integers of at least 1, got {corridor_lengths}")
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1, got {num_episodes}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    rng = np.random.default_rng(seed)
    lengths = rng.choice(choices, num_episodes)
    first_seed = int(rng.integers(2**31))
    return _walk_all(lengths, first_seed)


def _walk_all(lengths: np.ndarray, first_seed: int) -> Iterator[Recording]:
    for start in range(0, len(lengths), _ENVS):
        yield from _walk(lengths[start : start + _ENVS], first_seed + start)


def _walk(lengths: np.ndarray, seed: int) -> list[Recording]:
    """One episode in each corridor, side by side. What a maze does after its first episode is left out."""
    from rate.envs import TMazeExpert, TMazeVector

    count, steps = len(lengths), int(lengths.max()) + 1
    mazes = TMazeVector(count, corridor_length=lengths, balanced_goals=True)
    expert = TMazeExpert(count)
    observations = np.empty((steps + 1, count, 4), np.float32)
    actions = np.empty((steps, count), np.int64)
    rewards = np.empty((steps, count), np.float32)
    solved = np.zeros(count, np.bool_)
    expert.reset()
    observations[0], _ = mazes.reset(seed=seed)
    for step in range(steps):
        actions[step] = expert.act(observations[step])
        observations[step + 1], rewards[step], terminated, _, _ = mazes.step(actions[step])
        solved |= (lengths == step) & terminated & (rewards[step] > 0)
    if not solved.all():
        raise RuntimeError(
            f"the expert failed {count - int(solved.sum())} of {count} episodes, expected none"
        )
    return [
        Recording(
            observations[: length + 2, maze].copy(),
            actions[: length + 1, maze].copy(),
            rewards[: length + 1, maze].copy(),
        )
        for maze, length in enumerate(lengths.tolist())
    ]
