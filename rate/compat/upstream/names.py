"""Where the published code keeps each of our parameters, and what else is in its state dict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from rate.compat.upstream.settings import Environment
from rate.config import RateConfig

Places = dict[str, tuple[str, ...]]
"""By our name: the published name, or several whose tensors are joined along the first dimension."""

_GATE = {"query": "wq", "key": "wk", "value": "wv", "output": "dense"}
_ATTENTION = {"qkv": "qkv_net", "position": "r_net", "output": "o_net"}
_UNIT = {"from_update": ("Wr", "Wz", "Wg"), "from_stream": ("Ur", "Uz"), "from_reset": ("Ug",)}


def places(config: RateConfig, environment: Environment) -> Places:
    """Every parameter of :class:`rate.RATE` with these settings."""
    found: Places = {"content_bias": ("r_w_bias",), "position_bias": ("r_r_bias",)}

    def linear(ours: str, theirs: str) -> None:
        found.update({f"{ours}.{kind}": (f"{theirs}.{kind}",) for kind in ("weight", "bias")})

    if config.num_memory:
        found["memory"] = ("mem_tokens",)
        if config.gate_heads:
            for ours, theirs in _GATE.items():
                linear(f"gate.{ours}", f"mha_mem_to_mem.{theirs}")
    linear("return_encoder", "ret_emb.0" if environment.return_list else "ret_emb")
    if config.observation == "image":
        for number in (0, 2, 4):
            linear(f"observation_encoder.convolutions.{number}", f"state_encoder.{number}")
        linear("observation_encoder.linear", "state_encoder.7")
    else:
        linear("observation_encoder.linear", "state_encoder")
    if config.action == "discrete":
        found["action_encoder.embedding.weight"] = ("action_embeddings.0.weight",)
        found["head.weight"] = ("head.weight",)
    else:
        linear("action_encoder.linear", "action_embeddings")
        linear("head.linear", "head.0")
    for layer in range(config.num_layers):
        _place_layer(found, f"layers.{layer}.", config)
    return found


def _place_layer(found: Places, prefix: str, config: RateConfig) -> None:
    norms = {"attention_norm": "layer_norm1"}
    if config.d_inner:
        norms["feed_forward_norm"] = "layer_norm2"
        norms |= {f"feed_forward.{number}": f"pos_ff.CoreNet.{number}" for number in (0, 3)}
    if config.gating:
        norms["inner_norm"] = "dec_attn.layer_norm"
        for ours, theirs in (("attention_gate", "gate_mha"), ("feed_forward_gate", "gate_mlp")):
            for part, names in _UNIT.items():
                joined = tuple(f"{prefix}{theirs}.{name}.weight" for name in names)
                found[f"{prefix}{ours}.{part}.weight"] = joined
            found[f"{prefix}{ours}.bias"] = (f"{prefix}{theirs}.bg",)
    for ours, theirs in _ATTENTION.items():
        found[f"{prefix}attention.{ours}.weight"] = (f"{prefix}dec_attn.{theirs}.weight",)
    for ours, theirs in norms.items():
        for kind in ("weight", "bias"):
            found[f"{prefix}{ours}.{kind}"] = (f"{prefix}{theirs}.{kind}",)


class Unused(nn.Module):
    """What the published model holds and never uses, under its own names.

    A table of timesteps and a norm of embeddings; in each layer the norms inside attention and feed-forward, but
    the first with GTrXL's gating, which uses it; the position encoding's frequencies, which are constants; and the
    memory gate of a model that has no memory.
    """

    inv_freq: Tensor

    def __init__(self, config: RateConfig, max_ep_len: int = 1000, gate_heads: int = 0) -> None:
        super().__init__()
        d = config.d_model
        self.embed_timestep = nn.Embedding(max_ep_len, d)
        self.embed_ln = nn.LayerNorm(d)
        self.pos_emb = nn.Module()
        self.pos_emb.register_buffer("inv_freq", 1 / 10000 ** (torch.arange(0.0, d, 2.0) / d))
        self.layers = nn.ModuleList()
        for _ in range(config.num_layers):
            layer = nn.Module()
            if not config.gating:
                layer.dec_attn = nn.ModuleDict({"layer_norm": nn.LayerNorm(d)})
            if config.d_inner:
                layer.pos_ff = nn.ModuleDict({"layer_norm": nn.LayerNorm(d)})
            self.layers.append(layer)
        if gate_heads and not config.num_memory:
            self.mha_mem_to_mem = nn.ModuleDict({name: nn.Linear(d, d) for name in _GATE.values()})


def published(ours: Mapping[str, Tensor], config: RateConfig, environment: Environment) -> dict[str, Tensor]:
    """Our tensors (parameters, or their gradients) under published names; views of them where that can be."""
    theirs: dict[str, Tensor] = {}
    for name, names in places(config, environment).items():
        if name not in ours:
            continue
        tensor = ours[name]
        if name == "memory":
            tensor = tensor[:, None]
        elif name == "action_encoder.embedding.weight" and not environment.no_action_row:
            tensor = tensor[:-1]
        theirs.update(zip(names, tensor.chunk(len(names)), strict=True))
    return theirs


def translated(
    theirs: Mapping[str, Tensor], config: RateConfig, environment: Environment
) -> Iterator[tuple[str, Tensor]]:
    """Published tensors under our names; those that are not there are left out."""
    for name, names in places(config, environment).items():
        if not all(part in theirs for part in names):
            continue
        tensor = torch.cat([theirs[part] for part in names]) if len(names) > 1 else theirs[names[0]]
        if name == "memory":
            tensor = tensor[:, 0]
        elif name == "action_encoder.embedding.weight" and not environment.no_action_row:
            tensor = torch.cat([tensor, tensor.new_zeros(1, tensor.shape[1])])
        yield name, tensor
