"""Checkpoints of the published code as our model, and our models as its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rate.compat.upstream.names import Unused, published, translated
from rate.compat.upstream.settings import (
    Environment,
    config_from_upstream,
    config_to_upstream,
    environment_named,
)
from rate.config import RateConfig
from rate.model import RATE


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
        ValueError: if a parameter is missing, left over or of the wrong shape, naming it as it is published.
    """
    if isinstance(config, RateConfig):
        environment = _environment(config)
    else:
        environment = environment_named(config.get("env_name", "mujoco"))
        config = config_from_upstream(config, segment_length)
    model = RATE(config)
    expected = published(model.state_dict(), config, environment)
    # A gate that a model without memory may hold is not used either.
    ignored = Unused(config, gate_heads=1).state_dict()
    for name in [*expected, *state_dict]:
        if name in ignored:
            continue
        if name not in state_dict or name not in expected:
            raise ValueError(
                f"state_dict {'lacks' if name not in state_dict else 'has no place for'} {name!r}"
            )
        if state_dict[name].shape != expected[name].shape:
            raise ValueError(
                f"{name} must be {list(expected[name].shape)}, got {list(state_dict[name].shape)}"
            )
    model.load_state_dict(dict(translated(state_dict, config, environment)))
    return model.eval()


def to_upstream(model: RATE, max_ep_len: int = 1000) -> dict[str, Tensor]:
    """A model's parameters as the published class loads them, strictly.

    The published constructor's arguments for it are :func:`config_to_upstream` of its configuration. What that class
    holds without using it is there too, as new: a table of timesteps, norms, and the position encoding's frequencies.

    Args:
        model: with settings that a published model can have.
        max_ep_len: rows of the table of timesteps, the constructor's argument of that name.

    Raises:
        ValueError: for a setting that no published model has, naming it.
    """
    environment = _environment(model.config)
    own = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    unused = Unused(model.config, max_ep_len).to(model.content_bias)
    # The published class reads the frequencies from here: they stay as precise as they are made.
    frequencies = {"pos_emb.inv_freq": Unused(model.config, 1).pos_emb.inv_freq}
    state = unused.state_dict() | published(own, model.config, environment) | frequencies
    return {name: tensor.clone() for name, tensor in state.items()}


def _environment(config: RateConfig) -> Environment:
    return environment_named(config_to_upstream(config)["env_name"])
