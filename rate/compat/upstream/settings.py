"""The published constructor's arguments as our settings, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from rate.config import RateConfig

_REQUIRED = (
    *("state_dim", "act_dim", "n_layer", "n_head", "n_head_ca"),
    *("d_model", "d_head", "d_inner", "dropout", "dropatt"),
)
_ACTIVATIONS = {"relu": "relu", "leaky_relu": "leaky_relu", "tanh": "tanh", "no_act": "none"}


class Environment(NamedTuple):
    """The encoders and the head that the published model has for an ``env_name``.

    Args:
        image: ``(channels, height, width)``; None for vectors of ``state_dim`` numbers.
        image_padding: of its convolutions.
        image_tanh: whether its encoding passes a tanh.
        continuous: whether actions are vectors, and not indices.
        action_tanh: whether encoded actions pass a tanh.
        no_action_row: whether the table of actions has a row more than actions, for padding.
        return_list: whether the return encoder's parameters are those of a list's first entry.
        return_tanh: whether encoded returns pass a tanh.
    """

    image: tuple[int, int, int] | None = None
    image_padding: int = 0
    image_tanh: bool = True
    continuous: bool = False
    action_tanh: bool = True
    no_action_row: bool = True
    return_list: bool = False
    return_tanh: bool = False


_COLOUR = Environment(no_action_row=False, return_list=True, return_tanh=True)
ENVIRONMENTS = {
    "tmaze": Environment(),
    "aar": Environment(),
    "mujoco": Environment(continuous=True, action_tanh=False),
    "memory_maze": _COLOUR._replace(image=(3, 64, 64), image_padding=2),
    "vizdoom": _COLOUR._replace(image=(3, 64, 112)),
    "atari": _COLOUR._replace(image=(4, 84, 84)),
    "minigrid_memory": Environment((3, 84, 84), image_tanh=False, action_tanh=False, return_list=True),
    "popgym": Environment(action_tanh=False),
    "mikasa_robo": Environment((6, 128, 128), continuous=True, action_tanh=False),
}
"""By name; the last two by a part of it, since the task's name is in it."""


def environment_named(name: str) -> Environment:
    """What the published model has for ``env_name``.

    Raises:
        ValueError: for an environment that is not reproduced.
    """
    if "popgym" in name and "Pendulum" in name:
        raise ValueError(
            f"env_name must be none of POPGym's pendulums, whose published encoders differ from version to version, "
            f"got {name!r}"
        )
    for known, environment in ENVIRONMENTS.items():
        if name == known or (known in ("popgym", "mikasa_robo") and known in name):
            return environment
    raise ValueError(f"env_name must be one of {', '.join(sorted(ENVIRONMENTS))}, got {name!r}")


def config_from_upstream(config: Mapping[str, Any], segment_length: int | None = None) -> RateConfig:
    """The settings that make our model the published one.

    Args:
        config: the published constructor's keyword arguments; ``context_length`` is read too where it is there.
        segment_length: K; ``config["context_length"]`` or 20 by default. It matters for acting only.

    Raises:
        ValueError: for a setting that is not reproduced, or an argument that is missing, naming it.
    """
    for name in _REQUIRED:
        if name not in config:
            raise ValueError(f"config must hold {name!r}, got {', '.join(config)}")
    environment = environment_named(config.get("env_name", "mujoco"))
    memory = config.get("num_mem_tokens") or 0
    _refuse_what_is_not_reproduced(config, memory)
    return RateConfig(
        observation="image" if environment.image else "vector",
        observation_shape=environment.image or (config["state_dim"],),
        observation_tanh=environment.image_tanh,
        image_padding=environment.image_padding,
        action="continuous" if environment.continuous else "discrete",
        action_size=config["act_dim"],
        action_tanh=environment.action_tanh,
        return_tanh=environment.return_tanh,
        segment_length=segment_length or config.get("context_length") or 20,
        num_memory=memory,
        cache_len=config.get("mem_len") or 0,
        read_cache=bool(config.get("read_mem_from_cache", False)),
        gate_heads=config["n_head_ca"] if memory else 0,
        gate_activation=_ACTIVATIONS[config.get("mrv_act", "relu")],
        write_last_action=False,
        d_model=config["d_model"],
        num_layers=config["n_layer"],
        num_heads=config["n_head"],
        d_head=config["d_head"],
        d_inner=0 if config.get("skip_dec_ffn") else config["d_inner"],
        block="published",
        gating=bool(config.get("use_gate")),
        shift="transformer_xl",
        dropout=config["dropout"],
        attention_dropout=config["dropatt"],
    )


def _refuse_what_is_not_reproduced(config: Mapping[str, Any], memory: int) -> None:
    gated = bool(config.get("use_gate"))
    reproduced = {
        "same_length": False,
        "clamp_len": -1,
        "use_stable_version": gated,
        "pre_lnorm": gated,
    }
    if memory:
        reproduced["mem_at_end"] = True
    for name, value in reproduced.items():
        given = config.get(name, value)
        if given != value:
            raise ValueError(f"{name} must be {value} here, got {given!r}")
    if config.get("ext_len"):
        raise ValueError(f"ext_len must be 0 here, got {config['ext_len']!r}")
    if config.get("mrv_act", "relu") not in _ACTIVATIONS:
        raise ValueError(f"mrv_act must be one of {', '.join(_ACTIVATIONS)}, got {config['mrv_act']!r}")
    if gated and config.get("skip_dec_ffn"):
        raise ValueError("skip_dec_ffn must be False with use_gate, got True")


def config_to_upstream(config: RateConfig) -> dict[str, Any]:
    """The published constructor's arguments of a model with these settings; ``env_name`` is one with its encoders.

    Raises:
        ValueError: for a setting that no published model has, naming it.
    """
    arguments = {
        "state_dim": config.observation_shape[0] if config.observation_shape else config.num_observations,
        "act_dim": config.action_size,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_head_ca": config.gate_heads if config.num_memory else 0,
        "d_model": config.d_model,
        "d_head": config.d_head,
        "d_inner": config.d_inner or config.d_model,
        "dropout": config.dropout,
        "dropatt": config.attention_dropout,
        "pre_lnorm": config.gating,
        "ext_len": 0,
        "mem_len": config.cache_len,
        "num_mem_tokens": config.num_memory,
        "read_mem_from_cache": config.read_cache,
        "mem_at_end": config.num_memory > 0,
        "use_gate": config.gating,
        "use_stable_version": config.gating,
        "mrv_act": {ours: theirs for theirs, ours in _ACTIVATIONS.items()}[config.gate_activation],
        "skip_dec_ffn": config.d_inner == 0,
    }
    differences: list[list[str]] = []
    for name in ENVIRONMENTS:
        found = config_from_upstream(arguments | {"env_name": name}, config.segment_length)
        differences.append(_differences(config, found))
        if not differences[-1]:
            return arguments | {"env_name": name}
    raise ValueError(f"no published model has these settings: {min(differences, key=len)[0]}")


def _differences(config: RateConfig, published: RateConfig) -> list[str]:
    """What ``config`` has otherwise, as sentences; without the settings that change no parameter's meaning."""
    ignored = {"write_last_action"} | ({"gate_heads"} if not config.num_memory else set())
    ignored |= {"observation_tanh", "image_padding"} if config.observation == "vector" else set()
    return [
        f"{field.name} must be {getattr(published, field.name)!r}, got {getattr(config, field.name)!r}"
        for field in dataclasses.fields(RateConfig)
        if field.name not in ignored and getattr(config, field.name) != getattr(published, field.name)
    ]
