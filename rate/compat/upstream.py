"""Checkpoints of the published RATE code (github.com/CognitiveAISystems/RATE).

Only parameter names and constructor arguments are shared with it. What the published model does that new models do not
is a setting of :class:`RateConfig`: the published block, ``shift="transformer_xl"`` and ``write_last_action=False``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rate.config import RateConfig
from rate.model import RATE

_ACTION_TANH = {"tmaze", "aar", "memory_maze", "vizdoom", "atari"}
_CONTINUOUS = {"mujoco"}
_IMAGES = {
    "memory_maze": (3, 64, 64),
    "minigrid_memory": (3, 84, 84),
    "vizdoom": (3, 64, 112),
    "atari": (4, 84, 84),
}
_VECTORS = {"tmaze", "aar", "mujoco"}
# Parameters that the published model holds but never uses.
_UNUSED = ("embed_timestep.", "embed_ln.", "pos_emb.", ".pos_ff.layer_norm.")


def config_from_upstream(config: Mapping[str, Any], segment_length: int | None = None) -> RateConfig:
    """The settings that make our model the published one.

    Args:
        config: the published constructor's keyword arguments; ``context_length`` is read too where it is there.
        segment_length: K; ``config["context_length"]`` or 20 by default. It matters for acting only.

    Raises:
        ValueError: for a setting that is not reproduced, naming it.
    """
    environment = config.get("env_name", "mujoco")
    if environment not in _VECTORS and environment not in _IMAGES:
        known = ", ".join(sorted(_VECTORS | set(_IMAGES)))
        raise ValueError(f"env_name must be one of {known}, got {environment!r}")
    memory = config.get("num_mem_tokens") or 0
    gated = bool(config.get("use_gate"))
    unsupported = {
        "same_length": False,
        "clamp_len": -1,
        "ext_len": 0,
        "mem_at_end": bool(memory),
        "use_stable_version": gated,
        "pre_lnorm": gated,
    }
    for name, supported in unsupported.items():
        value = config.get(name, supported)
        if value != supported and not (name == "ext_len" and value is None):
            raise ValueError(f"{name} must be {supported} here, got {value!r}")
    return RateConfig(
        observation="vector" if environment in _VECTORS else "image",
        observation_shape=(config["state_dim"],) if environment in _VECTORS else _IMAGES[environment],
        observation_tanh=environment != "minigrid_memory",
        image_padding=2 if environment == "memory_maze" else 0,
        action="continuous" if environment in _CONTINUOUS else "discrete",
        action_size=config["act_dim"],
        action_tanh=environment in _ACTION_TANH,
        segment_length=segment_length or config.get("context_length") or 20,
        num_memory=memory,
        cache_len=config.get("mem_len") or 0,
        read_cache=bool(config.get("read_mem_from_cache", False)),
        gate_heads=config["n_head_ca"] if memory else 0,
        gate_activation={"no_act": "none"}.get(config.get("mrv_act", "relu"), config.get("mrv_act", "relu")),
        write_last_action=False,
        d_model=config["d_model"],
        num_layers=config["n_layer"],
        num_heads=config["n_head"],
        d_head=config["d_head"],
        d_inner=0 if config.get("skip_dec_ffn") else config["d_inner"],
        block="published",
        gating=gated,
        shift="transformer_xl",
        dropout=config["dropout"],
        attention_dropout=config["dropatt"],
    )


def load(
    state_dict: Mapping[str, Tensor],
    config: RateConfig | Mapping[str, Any],
    segment_length: int | None = None,
) -> RATE:
    """Our model with the published code's parameters, in evaluation mode.

    Args:
        state_dict: the published model's ``state_dict()``.
        config: the published constructor's keyword arguments, or a configuration already made from them.
        segment_length: see :func:`config_from_upstream`.

    Raises:
        ValueError: if a parameter is missing, left over or of the wrong shape, naming it.
    """
    if not isinstance(config, RateConfig):
        config = config_from_upstream(config, segment_length)
    model = RATE(config)
    ours = _translate(dict(state_dict), config)
    expected = model.state_dict()
    for name in [*expected, *ours]:
        if name not in ours or name not in expected:
            raise ValueError(f"state_dict {'lacks' if name not in ours else 'has no place for'} {name!r}")
        if ours[name].shape != expected[name].shape:
            raise ValueError(f"{name} must be {list(expected[name].shape)}, got {list(ours[name].shape)}")
    model.load_state_dict(ours)
    return model.eval()


def _translate(theirs: dict[str, Tensor], config: RateConfig) -> dict[str, Tensor]:
    """The published parameters under our names."""
    ours: dict[str, Tensor] = {}
    gates: dict[str, dict[str, Tensor]] = {}
    for name, tensor in theirs.items():
        if any(part in name for part in _UNUSED) or (".dec_attn.layer_norm." in name and not config.gating):
            continue
        if ".gate_mha." in name or ".gate_mlp." in name:
            prefix, part = name.split(".gate_")
            ours_prefix = f"{prefix}.{'attention' if part.startswith('mha') else 'feed_forward'}_gate"
            gates.setdefault(ours_prefix, {})[part.split(".")[1]] = tensor
        elif name == "mem_tokens":
            ours["memory"] = tensor[:, 0]
        elif name.startswith("action_embeddings.") and config.action == "discrete":
            missing = (
                config.action_size + 1 - tensor.shape[0]
            )  # some environments have no row for "no action"
            ours["action_encoder.embedding.weight"] = torch.nn.functional.pad(tensor, (0, 0, 0, missing))
        else:
            ours[_rename(name, config)] = tensor
    for prefix, parts in gates.items():
        ours[f"{prefix}.from_update.weight"] = torch.cat([parts["Wr"], parts["Wz"], parts["Wg"]])
        ours[f"{prefix}.from_stream.weight"] = torch.cat([parts["Ur"], parts["Uz"]])
        ours[f"{prefix}.from_reset.weight"] = parts["Ug"]
        ours[f"{prefix}.bias"] = parts["bg"]
    return ours


def _rename(name: str, config: RateConfig) -> str:
    observation = "linear"
    if config.observation == "image":
        # Their encoder is one sequence: convolutions at 0, 2, 4, the linear map at 7.
        convolution = name.removeprefix("state_encoder.").split(".")[0]
        observation = "linear" if convolution == "7" else f"convolutions.{convolution}"
        name = name.replace(f"state_encoder.{convolution}.", "state_encoder.")
    for theirs, ours in {
        "state_encoder.": f"observation_encoder.{observation}.",
        "action_embeddings.": "action_encoder.linear.",
        "ret_emb.": "return_encoder.",
        "head.0.": "head.linear.",
        "mha_mem_to_mem.wq.": "gate.query.",
        "mha_mem_to_mem.wk.": "gate.key.",
        "mha_mem_to_mem.wv.": "gate.value.",
        "mha_mem_to_mem.dense.": "gate.output.",
        "dec_attn.qkv_net.": "attention.qkv.",
        "dec_attn.r_net.": "attention.position.",
        "dec_attn.o_net.": "attention.output.",
        "dec_attn.layer_norm.": "inner_norm.",
        "layer_norm1.": "attention_norm.",
        "layer_norm2.": "feed_forward_norm.",
        "pos_ff.CoreNet.": "feed_forward.",
        "r_w_bias": "content_bias",
        "r_r_bias": "position_bias",
    }.items():
        if theirs in name:
            return name.replace(theirs, ours)
    return name
