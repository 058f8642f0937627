"""A model as the acting engine takes it: sizes and switches, and parameters by the engine's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from rate.config import RateConfig
from rate_kernels.recurrence import RecurrenceShape

if TYPE_CHECKING:
    from rate.model import RATE


def acts_token_by_token(config: RateConfig) -> bool:
    """Whether the engine can act: in ``shift="transformer_xl"`` a new token changes what earlier ones gave.

    Return tokens under a tanh are the published image models' alone, which have that shift.
    """
    return config.shift == "signed" and not config.return_tanh


def recurrence_shape(config: RateConfig) -> RecurrenceShape:
    """What the engine needs to know of ``config``.

    Raises:
        ValueError: for settings that :func:`acts_token_by_token` refuses.
    """
    if not acts_token_by_token(config):
        raise ValueError(
            f"shift must be signed and return_tanh False to act token by token, "
            f"got {config.shift} and {config.return_tanh}"
        )
    block: str = config.block
    if block == "published" and config.gating:
        block = "published_gated"
    vector = config.observation == "vector"
    return RecurrenceShape(
        d_model=config.d_model,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        d_head=config.d_head,
        d_inner=config.d_inner,
        num_memory=config.num_memory,
        segment_tokens=3 * config.segment_length,
        cache_len=config.cache_len,
        read_cache=config.read_cache,
        gate_heads=config.gate_heads if config.num_memory else 0,
        gate_activation=config.gate_activation,
        block=block,
        gated=config.gating,
        observation="embedded" if config.observation == "image" else config.observation,
        observation_size=config.observation_shape[0] if vector else config.num_observations,
        normalized=vector and config.normalize_observations,
        action=config.action,
        action_size=config.action_size,
        action_tanh=config.action_tanh,
        action_scale=config.action_scale,
        return_scale=config.return_scale,
    )


def recurrence_parameters(model: RATE) -> dict[str, Tensor]:
    """The model's parameters by the engine's names: the model's own tensors, without gradient."""
    config = model.config
    found: dict[str, Tensor] = {"content_bias": model.content_bias, "position_bias": model.position_bias}

    def linear(name: str, layer: Any, weight: str = "_weight", bias: str = "_bias") -> None:
        for suffix, tensor in ((weight, layer.weight), (bias, layer.bias)):
            if isinstance(tensor, Tensor):
                found[name + suffix] = tensor

    if model.memory is not None:
        found["memory"] = model.memory
    if isinstance(model.final_norm, nn.LayerNorm):
        linear("final_norm", model.final_norm)
    if model.gate is not None:
        for part in ("query", "key", "value", "output"):
            linear(f"gate_{part}", getattr(model.gate, part))
    linear("return", model.return_encoder)
    observe: Any = model.observation_encoder
    act: Any = model.action_encoder
    head: Any = model.head
    if config.observation == "vector":
        linear("observation", observe.linear)
        if config.normalize_observations:
            found |= {"observation_mean": observe.mean, "observation_std": observe.std}
    elif config.observation == "discrete":
        found["observation_weight"] = observe.embedding.weight
    if config.action == "continuous":
        linear("action", act.linear)
        linear("head", head.linear)
    else:
        found["action_weight"] = act.embedding.weight
        found["head_weight"] = head.weight
    layer: Any
    for index, layer in enumerate(model.layers):
        prefix = f"layers.{index}."
        for name in ("attention_norm", "inner_norm", "feed_forward_norm"):
            if hasattr(layer, name):
                linear(prefix + name, getattr(layer, name))
        for name in ("qkv", "position", "output"):
            found[prefix + name] = getattr(layer.attention, name).weight
        if config.d_inner:
            linear(f"{prefix}feed_forward_in", layer.feed_forward[0], weight="")
            linear(f"{prefix}feed_forward_out", layer.feed_forward[3], weight="")
        if config.gating:
            for name in ("attention", "feed_forward"):
                unit = getattr(layer, f"{name}_gate")
                for source in ("update", "stream", "reset"):
                    found[f"{prefix}{name}_from_{source}"] = getattr(unit, f"from_{source}").weight
                found[f"{prefix}{name}_gate_bias"] = unit.bias
    return {name: tensor.detach() for name, tensor in found.items()}
