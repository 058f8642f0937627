"""The originals' equations in plain torch functions on their own state dicts, written from their description.

Every function takes ``p``, a state dict under the original's names, and computes in the dtype it is given.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Parameters = dict[str, Tensor]


def norm(p: Parameters, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * p[f"{name}.weight"]
        + p[f"{name}.bias"]
    )


def linear(p: Parameters, name: str, x: Tensor) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def conv1d(p: Parameters, name: str, x: Tensor) -> Tensor:
    """GPT-2's linear layer, with a weight ``[in, out]``."""
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def tokens(returns: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """Three ``[B, K, d]`` to ``[B, 3K, d]``: R, s, a of one step after another."""
    return torch.stack([returns, states, actions], 2).flatten(1, 2)


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.clamp(min=0),
    "gelu_new": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
}


def kzl(
    p: Parameters,
    heads: int,
    activation: str,
    states: Tensor,
    actions: Tensor,
    returns_to_go: Tensor,
    timesteps: Tensor,
    mask: Tensor | None = None,
    tanh: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """kzl/decision-transformer, gym: ``mask [B, K]`` is 1 where real; masks are added as -10,000."""
    batch, steps = timesteps.shape
    layers = len({name.split(".")[2] for name in p if name.startswith("transformer.h.")})
    time = p["embed_timestep.weight"][timesteps]
    x = tokens(
        linear(p, "embed_return", returns_to_go) + time,
        linear(p, "embed_state", states) + time,
        linear(p, "embed_action", actions) + time,
    )
    x = norm(p, "embed_ln", x)
    mask = torch.ones(batch, steps) if mask is None else mask
    padding = (1 - mask.repeat_interleave(3, 1).to(x.dtype)) * -1e4
    causal = torch.ones(3 * steps, 3 * steps).tril().bool()
    for layer in range(layers):
        name = f"transformer.h.{layer}"
        qkv = conv1d(p, f"{name}.attn.c_attn", norm(p, f"{name}.ln_1", x))
        q, k, v = (heads_of(part, heads) for part in qkv.chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / v.shape[-1] ** 0.5
        scores = torch.where(causal, scores, -1e4) + padding[:, None, None]
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + conv1d(p, f"{name}.attn.c_proj", mixed)
        inner = conv1d(p, f"{name}.mlp.c_fc", norm(p, f"{name}.ln_2", x))
        x = x + conv1d(p, f"{name}.mlp.c_proj", ACTIVATIONS[activation](inner))
    x = norm(p, "transformer.ln_f", x).unflatten(1, (steps, 3))
    predicted = linear(p, "predict_action.0", x[:, :, 1])
    return (
        linear(p, "predict_state", x[:, :, 2]),
        predicted.tanh() if tanh else predicted,
        linear(p, "predict_return", x[:, :, 2]),
    )


def corl(
    p: Parameters,
    heads: int,
    max_action: float,
    states: Tensor,
    actions: Tensor,
    returns_to_go: Tensor,
    time_steps: Tensor,
    padding: Tensor | None = None,
) -> Tensor:
    """CORL: ``returns_to_go [B, K]``; ``padding [B, K]`` is True for what nobody attends to."""
    batch, steps = time_steps.shape
    layers = len({name.split(".")[1] for name in p if name.startswith("blocks.")})
    time = p["timestep_emb.weight"][time_steps]
    x = tokens(
        linear(p, "return_emb", returns_to_go[..., None]) + time,
        linear(p, "state_emb", states) + time,
        linear(p, "action_emb", actions) + time,
    )
    x = norm(p, "emb_norm", x)
    blocked = ~torch.ones(3 * steps, 3 * steps).tril().bool()
    blocked = blocked.expand(batch, 1, -1, -1)
    if padding is not None:
        blocked = blocked | padding.repeat_interleave(3, 1)[:, None, None]
        # A row of padding at the front sees nothing and is NaN there; only real rows are compared.
        blocked = blocked & ~torch.eye(3 * steps).bool()
    for layer in range(layers):
        name = f"blocks.{layer}"
        y = norm(p, f"{name}.norm1", x)
        qkv = y @ p[f"{name}.attention.in_proj_weight"].T + p[f"{name}.attention.in_proj_bias"]
        q, k, v = (heads_of(part, heads) for part in qkv.chunk(3, -1))
        scores = (q @ k.transpose(-1, -2) / v.shape[-1] ** 0.5).masked_fill(blocked, -torch.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + linear(p, f"{name}.attention.out_proj", mixed)
        inner = linear(p, f"{name}.mlp.0", norm(p, f"{name}.norm2", x))
        inner = 0.5 * inner * (1 + torch.erf(inner / 2**0.5))
        x = x + linear(p, f"{name}.mlp.2", inner)
    x = norm(p, "out_norm", x).unflatten(1, (steps, 3))
    return F.tanh(linear(p, "action_head.0", x[:, :, 1])) * max_action


def huggingface(
    p: Parameters,
    heads: int,
    states: Tensor,
    actions: Tensor,
    returns_to_go: Tensor,
    timesteps: Tensor,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """transformers' DecisionTransformerModel with relu and tanh: every token gets the first position's embedding."""
    batch, steps = timesteps.shape
    layers = len({name.split(".")[2] for name in p if name.startswith("encoder.h.")})
    time = p["embed_timestep.weight"][timesteps]
    x = tokens(
        linear(p, "embed_return", returns_to_go) + time,
        linear(p, "embed_state", states) + time,
        linear(p, "embed_action", actions) + time,
    )
    x = norm(p, "embed_ln", x) + p["encoder.wpe.weight"][0]
    seen = torch.ones(3 * steps, 3 * steps).tril().bool().expand(batch, 1, -1, -1)
    if mask is not None:
        seen = seen & mask.bool().repeat_interleave(3, 1)[:, None, None]
    for layer in range(layers):
        name = f"encoder.h.{layer}"
        qkv = conv1d(p, f"{name}.attn.c_attn", norm(p, f"{name}.ln_1", x))
        q, k, v = (heads_of(part, heads) for part in qkv.chunk(3, -1))
        scores = (q @ k.transpose(-1, -2) / v.shape[-1] ** 0.5).masked_fill(~seen, torch.finfo(x.dtype).min)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + conv1d(p, f"{name}.attn.c_proj", mixed)
        inner = conv1d(p, f"{name}.mlp.c_fc", norm(p, f"{name}.ln_2", x)).clamp(min=0)
        x = x + conv1d(p, f"{name}.mlp.c_proj", inner)
    x = norm(p, "encoder.ln_f", x).unflatten(1, (steps, 3))
    return (
        linear(p, "predict_state", x[:, :, 2]),
        linear(p, "predict_action.0", x[:, :, 1]).tanh(),
        linear(p, "predict_return", x[:, :, 2]),
    )
