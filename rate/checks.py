"""Checks of a model's arguments, before any work: one line that names the argument, what came, what was expected."""

from __future__ import annotations

import torch
from torch import Tensor

from rate.config import RateConfig
from rate.state import SegmentState


def check_segment(
    config: RateConfig,
    observations: Tensor,
    actions: Tensor,
    returns_to_go: Tensor,
    state: SegmentState | None,
    padding: Tensor | None,
) -> None:
    """Raises ValueError or TypeError where an argument of ``RATE.forward`` does not fit. Values are not read."""
    rank = 2 + len(config.observation_shape)
    if observations.dim() != rank or tuple(observations.shape[2:]) != config.observation_shape:
        expected = ", ".join(["B", "K", *map(str, config.observation_shape)])
        raise ValueError(f"observations must be [{expected}], got {list(observations.shape)}")
    if config.observation == "discrete" and observations.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"observations must be int64 or int32, got {observations.dtype}")
    batch, steps = observations.shape[:2]
    if steps < 1:
        raise ValueError("observations must hold at least one step, got 0")
    _check_actions(config, actions, batch, steps)
    if tuple(returns_to_go.shape) != (batch, steps, 1):
        raise ValueError(f"returns_to_go must be {[batch, steps, 1]}, got {list(returns_to_go.shape)}")
    if not returns_to_go.is_floating_point():
        raise TypeError(f"returns_to_go must be floating point, got {returns_to_go.dtype}")
    if padding is not None and tuple(padding.shape) != (batch,):
        raise ValueError(f"padding must be [{batch}], got {list(padding.shape)}")
    for name, tensor in (("actions", actions), ("returns_to_go", returns_to_go), ("padding", padding)):
        if tensor is not None and tensor.device != observations.device:
            raise TypeError(
                f"{name} must be on observations' device {observations.device}, got {tensor.device}"
            )
    if state is not None:
        _check_state(config, state, batch)


def _check_actions(config: RateConfig, actions: Tensor, batch: int, steps: int) -> None:
    trailing = [] if config.action == "discrete" else [config.action_size]
    fits = (
        actions.dim() == 2 + len(trailing)
        and list(actions.shape[2:]) == trailing
        and actions.shape[0] == batch
    )
    if not fits or actions.shape[1] not in (steps, steps - 1):
        expected = [batch, steps, *trailing]
        raise ValueError(f"actions must be {expected}, or one step fewer, got {list(actions.shape)}")
    if config.action == "discrete" and actions.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"actions must be int64 or int32, got {actions.dtype}")
    if config.action == "continuous" and not actions.is_floating_point():
        raise TypeError(f"actions must be floating point, got {actions.dtype}")


def _check_state(config: RateConfig, state: SegmentState, batch: int) -> None:
    expected = [batch, config.num_memory, config.d_model]
    if (state.memory is None) != (config.num_memory == 0):
        got = None if state.memory is None else list(state.memory.shape)
        raise ValueError(f"state.memory must be {expected if config.num_memory else None}, got {got}")
    if state.memory is not None and list(state.memory.shape) != expected:
        raise ValueError(f"state.memory must be {expected}, got {list(state.memory.shape)}")
    layers = config.num_layers if config.cache_len else 0
    if len(state.cache) != layers:
        raise ValueError(f"state.cache must hold {layers} layers, got {len(state.cache)}")
    for index, layer in enumerate(state.cache):
        if layer.dim() != 3 or layer.shape[0] != batch or layer.shape[2] != config.d_model:
            raise ValueError(
                f"state.cache[{index}] must be [{batch}, c, {config.d_model}], got {list(layer.shape)}"
            )
        if layer.shape[1] != state.cache[0].shape[1]:
            raise ValueError("state.cache must have the same length in every layer")
