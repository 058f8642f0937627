"""Small models and batches with random content."""

from __future__ import annotations

import torch
from torch import Tensor

from rate import RATE, RateConfig
from rate.data import SegmentBatch


def config(**settings) -> RateConfig:
    """Two small layers with memory and gate, without dropout, unless ``settings`` say otherwise."""
    small = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_inner": 24, "segment_length": 3}
    small |= {"num_memory": 2, "dropout": 0.0, "observation_shape": (3,), "action_size": 4}
    return RateConfig(**small | settings)


def model(seed: int = 0, dtype: torch.dtype = torch.float64, **settings) -> RATE:
    torch.manual_seed(seed)
    return RATE(config(**settings)).to(dtype)


def batch(
    lengths: list[int], settings: RateConfig, seed: int = 0, dtype: torch.dtype = torch.float64
) -> SegmentBatch:
    """Episodes of these lengths, padded with zeros to whole segments of the longest."""
    generator = torch.Generator().manual_seed(seed)
    steps = -(-max(lengths) // settings.segment_length) * settings.segment_length
    lead = (len(lengths), steps)
    mask = torch.arange(steps) < torch.tensor(lengths)[:, None]
    if settings.observation == "discrete":
        observations = torch.randint(settings.num_observations, lead, generator=generator)
    elif settings.observation == "image":
        shape = (*lead, *settings.observation_shape)
        observations = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    else:
        observations = torch.randn(*lead, *settings.observation_shape, generator=generator, dtype=dtype)
    if settings.action == "discrete":
        actions = torch.randint(settings.action_size, lead, generator=generator)
    else:
        actions = torch.rand(*lead, settings.action_size, generator=generator, dtype=dtype) * 2 - 1
    returns = torch.randn(*lead, 1, generator=generator, dtype=dtype)
    tensors = [_zero_where(~mask, tensor) for tensor in (observations, actions, returns)]
    return SegmentBatch(*tensors, mask, torch.arange(steps).expand(lead) * mask)


def error(actual: Tensor, expected: Tensor) -> float:
    """Relative error by norm."""
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-30))


def _zero_where(padding: Tensor, values: Tensor) -> Tensor:
    return torch.where(padding.view(*padding.shape, *[1] * (values.dim() - 2)), 0, values)
