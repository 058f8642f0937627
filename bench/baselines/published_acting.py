"""Acting as published: the whole running segment is re-run at every step, write tokens included."""

import torch
from torch import Tensor

from bench.baselines.published_model import PublishedRATE


class PublishedActor:
    """Acts for a batch of environments that move in step.

    Memory and cache move on when a segment is full. They come from the call for its last step, which has not
    seen that step's action: a training segment is written from 3K tokens, an acting one from 3K - 1.
    """

    def __init__(self, model: PublishedRATE, segment_steps: int, batch_size: int = 1) -> None:
        self.model, self.segment_steps = model, segment_steps
        self.memory = model.initial_memory(batch_size)
        self.cache: list[Tensor] = []
        self._written: tuple[Tensor | None, list[Tensor]] = (self.memory, self.cache)
        self.states: Tensor | None = None
        self.rtgs: Tensor | None = None
        self.actions: Tensor | None = None

    @torch.no_grad()
    def act(self, state: Tensor, rtg: Tensor) -> Tensor:
        """state: [B, state_dim]; rtg: [B, 1]; returns logits [B, act_dim]. Follow with `observe_action`."""
        state, rtg = state[:, None], rtg[:, None]
        if self.states is not None and self.states.shape[1] == self.segment_steps:
            self.memory, self.cache = self._written
            self.states = self.rtgs = self.actions = None
        self.states = state if self.states is None else torch.cat([self.states, state], dim=1)
        self.rtgs = rtg if self.rtgs is None else torch.cat([self.rtgs, rtg], dim=1)
        out = self.model(
            self.states, self.actions, self.rtgs, None, None, *self.cache, mem_tokens=self.memory
        )
        self._written = (out["mem_tokens"], out["new_mems"])
        logits: Tensor = out["logits"]
        return logits[:, -1]

    def observe_action(self, action: Tensor) -> None:
        """action: [B, 1] discrete or [B, act_dim] continuous: what was done in the state given to `act`."""
        action = action[:, None]
        self.actions = action if self.actions is None else torch.cat([self.actions, action], dim=1)


def rollout(
    model: PublishedRATE, states: Tensor, actions: Tensor, rtgs: Tensor, segment_steps: int
) -> Tensor:
    """Act along recorded episodes. states [B, T, state_dim], actions [B, T, 1 or act_dim], rtgs [B, T, 1];
    returns the logits of every step, [B, T, act_dim]."""
    actor = PublishedActor(model, segment_steps, states.shape[0])
    logits = []
    for t in range(states.shape[1]):
        logits.append(actor.act(states[:, t], rtgs[:, t]))
        actor.observe_action(actions[:, t])
    return torch.stack(logits, dim=1)
