"""Drawing the next action from the model."""

from __future__ import annotations

import torch
from torch import Tensor

from rate.compat.kzl_atari.model import GPT


@torch.no_grad()
def sample(
    model: GPT,
    x: Tensor,
    steps: int,
    temperature: float = 1.0,
    sample: bool = False,
    top_k: int | None = None,
    actions: Tensor | None = None,
    rtgs: Tensor | None = None,
    timesteps: Tensor | None = None,
) -> Tensor:
    """The next action of each row, with ``model`` put into evaluation mode.

    Histories longer than the model's window are cut to their last ``block_size // 3`` steps. A model with memory is
    started by ``actions=None`` and goes on by one step per call: see :meth:`GPT.forward`.

    Args:
        model: the model.
        x: states ``[B, T, 4 * 84 * 84]``, or anything of that many numbers per step.
        steps: 1, as images are not predicted.
        temperature: divides the logits.
        sample: whether to draw; otherwise the likeliest action is taken.
        top_k: draw from the likeliest k only.
        actions: int ``[B, T - 1, 1]``; None at an episode's first step.
        rtgs: ``[B, T, 1]``.
        timesteps: int64 ``[B, 1, 1]``, the current step, at most ``max_timestep``.

    Returns:
        int64 ``[B, 1]``.

    Raises:
        ValueError: for an argument that does not fit.
        RuntimeError: if a model with memory was not brought here step by step.
    """
    if steps != 1:
        raise ValueError(f"steps must be 1, got {steps}: a model of actions cannot go on without new states")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    model.eval()
    window = model.get_block_size() // 3
    actions, rtgs = (None if given is None else given[:, -window:] for given in (actions, rtgs))
    logits, _ = model(x[:, -window:], actions=actions, targets=None, rtgs=rtgs, timesteps=timesteps)
    logits = logits[:, -1] / temperature
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sample:
        return torch.multinomial(logits.softmax(-1), 1)
    return logits.argmax(-1, keepdim=True)
