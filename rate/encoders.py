"""What turns returns, observations and actions into tokens, and the last layer's outputs into actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rate.config import RateConfig


class VectorEncoder(nn.Module):
    """``[..., size] -> [..., d_model]``, standardised first where the configuration asks for it."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: RateConfig) -> None:
        super().__init__()
        (size,) = config.observation_shape
        self.linear = nn.Linear(size, config.d_model)
        self.normalize = config.normalize_observations
        if self.normalize:
            self.register_buffer("mean", torch.zeros(size))
            self.register_buffer("std", torch.ones(size))

    def forward(self, observations: Tensor) -> Tensor:
        observations = observations.to(self.linear.weight.dtype)
        if self.normalize:
            observations = (observations - self.mean) / self.std
        return self.linear(observations)


class ImageEncoder(nn.Module):
    """``uint8 [..., C, H, W] -> [..., d_model]``: the three convolutions of the paper, pixels divided by 255."""

    def __init__(self, config: RateConfig) -> None:
        super().__init__()
        channels, height, width = config.observation_shape
        layers: list[nn.Module] = []
        for out, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            layers += [nn.Conv2d(channels, out, kernel, stride, config.image_padding), nn.ReLU()]
            channels = out
            height, width = ((x + 2 * config.image_padding - kernel) // stride + 1 for x in (height, width))
            if min(height, width) < 1:
                raise ValueError(
                    f"observation_shape {config.observation_shape} is too small for the image encoder"
                )
        self.convolutions = nn.Sequential(*layers)
        self.linear = nn.Linear(channels * height * width, config.d_model)
        self.tanh = config.observation_tanh

    def forward(self, observations: Tensor) -> Tensor:
        leading = observations.shape[:-3]
        pixels = observations.flatten(0, -4).to(self.linear.weight.dtype)
        if not observations.is_floating_point():
            pixels = pixels.div_(255)
        encoded = self.linear(self.convolutions(pixels).flatten(1)).unflatten(0, leading)
        return encoded.tanh() if self.tanh else encoded


class DiscreteEncoder(nn.Module):
    """``int64 [...] -> [..., d_model]``."""

    def __init__(self, size: int, d_model: int, tanh: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, d_model)
        self.tanh = tanh

    def forward(self, index: Tensor) -> Tensor:
        embedded = self.embedding(index)
        return embedded.tanh() if self.tanh else embedded


class ContinuousEncoder(nn.Module):
    """``[..., A] -> [..., d_model]``, actions scaled to ``[-1, 1]``."""

    def __init__(self, config: RateConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.action_size, config.d_model)
        self.scale, self.tanh = config.action_scale, config.action_tanh

    def forward(self, actions: Tensor) -> Tensor:
        encoded = self.linear(actions.to(self.linear.weight.dtype) / self.scale)
        return encoded.tanh() if self.tanh else encoded


class ContinuousHead(nn.Module):
    """``[..., d_model] -> [..., A]`` in ``[-action_scale, action_scale]``."""

    def __init__(self, config: RateConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.d_model, config.action_size)
        self.scale = config.action_scale

    def forward(self, hidden: Tensor) -> Tensor:
        return self.linear(hidden).tanh() * self.scale


def observation_encoder(config: RateConfig) -> nn.Module:
    """The encoder that fits the configuration's observations."""
    if config.observation == "vector":
        return VectorEncoder(config)
    if config.observation == "image":
        return ImageEncoder(config)
    return DiscreteEncoder(config.num_observations, config.d_model, tanh=False)


def action_encoder(config: RateConfig) -> nn.Module:
    """The encoder that fits the configuration's actions; one embedding row more than actions, for "no action"."""
    if config.action == "discrete":
        return DiscreteEncoder(config.action_size + 1, config.d_model, config.action_tanh)
    return ContinuousEncoder(config)


def action_head(config: RateConfig) -> nn.Module:
    """The head that fits the configuration's actions: logits, or actions themselves."""
    if config.action == "discrete":
        return nn.Linear(config.d_model, config.action_size, bias=False)
    return ContinuousHead(config)
