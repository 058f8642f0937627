"""Acting with memory, one step per call: only the newest step is embedded, only the running segment is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rate.compat.kzl_atari.model import GPT


@dataclass
class Episode:
    """What is remembered of the running episodes, one per row."""

    step: int
    """The step that was acted on last."""
    states: Tensor
    """Its states ``[B, 4 * 84 * 84]``, by which the next call is known to go on from it."""
    tokens: Tensor
    """The running segment embedded, ``[B, n, P, d]``, without its last action, which is not known yet."""
    memory: Tensor | None
    """``[B, m, d]`` before the running segment."""


class Acting:
    """The episodes that a model acts in, step by step.

    The caller says with ``actions=None`` that episodes start; each further call is one step further. It gives the
    steps before as well: the states of the last but one must be those of the call before.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """No episode is running."""
        self.episode: Episode | None = None

    @torch.no_grad()
    def __call__(
        self, model: GPT, states: Tensor, actions: Tensor | None, rtgs: Tensor | None, timesteps: Tensor
    ) -> Tensor:
        """The hidden states of the newest step's tokens, ``[B, P, d]``.

        Arguments are those of :meth:`GPT.forward`, taken as checked, but for ``timesteps [B, 1]``.

        Raises:
            RuntimeError: for a call that does not go on from the one before.
            ValueError: for timesteps that are not the current step.
        """
        episode = None if actions is None else self._running(states, actions)
        number = 0 if episode is None else episode.step + 1
        expected = min(number, model.max_timestep)
        if not bool((timesteps == expected).all()):
            raise ValueError(
                f"timesteps must be the episode's current step, {expected}, got {timesteps.flatten().tolist()}"
            )
        memory, running = None, None
        if episode is not None and actions is not None:
            memory, running = episode.memory, episode.tokens.clone()
            running[:, -1, -1] += model.action_embeddings(actions[:, -1, 0].long())
            if number % model.memory.segment_length == 0:
                _, memory = _read(model, running, number, memory)
                running = None
        unknown = timesteps.new_zeros(len(states), 0, 1)
        tokens = model.embed(states[:, -1:], unknown, None if rtgs is None else rtgs[:, -1:])
        tokens = tokens + model.segment_position(timesteps.new_full((len(states), 1), number))
        if running is not None:
            tokens = torch.cat([running, tokens], dim=1)
        hidden, _ = _read(model, tokens, number + 1, memory)
        self.episode = Episode(number, states[:, -1].flatten(1).clone(), tokens, memory)
        return hidden[:, -1]

    def _running(self, states: Tensor, actions: Tensor) -> Episode:
        """The episode that a call with ``actions`` goes on with."""
        episode = self.episode
        if episode is not None and actions.shape[1] and len(states) == len(episode.states):
            before = states[:, -2].flatten(1) if states.shape[1] > 1 else episode.states
            if before.dtype == episode.states.dtype and torch.equal(before, episode.states):
                return episode
        raise RuntimeError(
            "states must go on by one step from the call before: with memory, acting starts with actions=None and "
            "passes every step; to read a window of an episode, give targets"
        )


def _read(model: GPT, tokens: Tensor, end: int, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Reads steps of one segment, the last of them before step ``end``."""
    step = torch.arange(end - tokens.shape[1], end, device=tokens.device).expand(tokens.shape[:2])
    return model.memory(tokens, model.transformer, step, None, memory)
