"""One published training step, packaged for timing."""

from dataclasses import dataclass

import torch
from torch import Tensor, autograd
from torch.nn import functional

from bench.baselines.published_model import PublishedRATE

# The T-Maze model of the published run script, which is not the one of the paper's table.
TMAZE_SCRIPT: dict[str, object] = {
    "state_dim": 4,
    "act_dim": 4,
    "n_layer": 10,
    "n_head": 4,
    "n_head_ca": 2,
    "d_model": 64,
    "d_head": 32,
    "d_inner": 32,
    "dropout": 0.2,
    "dropatt": 0.0,
    "mem_len": 0,
    "num_mem_tokens": 15,
    "env_name": "tmaze",
    "skip_dec_ffn": True,
    "padding_idx": -10,
}


def published_loss(model: PublishedRATE, logits: Tensor, actions: Tensor) -> Tensor:
    """Cross-entropy for discrete actions [B, K, 1], squared error for continuous ones [B, K, act_dim]."""
    if not model.discrete:
        return functional.mse_loss(logits, actions)
    ignored = -100 if model.padding_idx is None else model.padding_idx
    return functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), actions.reshape(-1).long(), ignore_index=ignored
    )


def published_training_step(model: PublishedRATE, states: Tensor, actions: Tensor, rtgs: Tensor) -> Tensor:
    """Forward, loss and backward of one first segment; gradients stay on the parameters, no optimiser.

    states [B, K, state_dim], actions [B, K, 1 or act_dim], rtgs [B, K, 1]; returns the loss, detached.
    """
    model.zero_grad(set_to_none=True)
    out = model(states, actions, rtgs, actions, None, mem_tokens=model.initial_memory(states.shape[0]))
    loss = published_loss(model, out["logits"], actions)
    autograd.backward(loss)
    return loss.detach()


@dataclass
class PublishedTrainingStep:
    """The T-Maze model of the published script, and a batch for it; a call does forward, loss, backward.

    On a GPU the caller synchronises. `model` may be replaced, by a compiled one for instance.
    """

    batch_size: int = 32
    steps: int = 50
    host_copies: bool = True
    device: str | torch.device = "cpu"
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        model = PublishedRATE(**TMAZE_SCRIPT, host_copies=self.host_copies)  # type: ignore[arg-type]
        self.model = model.to(self.device, self.dtype).train()
        shape = (self.batch_size, self.steps)
        self.states = torch.randint(-1, 2, (*shape, 4)).to(self.device, self.dtype)
        self.actions = torch.randint(0, 4, (*shape, 1)).to(self.device, self.dtype)
        self.rtgs = torch.ones(*shape, 1, device=self.device, dtype=self.dtype)

    def __call__(self) -> Tensor:
        return published_training_step(self.model, self.states, self.actions, self.rtgs)
