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
    """``uint8 [..., C, H, W] -> [..., d_model]``: the three convolutions of the paper, pixels divided by 255.

    On a CPU, images that are there more than once, as views of a corridor are, pass the convolutions once.
    """

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
        images = observations.flatten(0, -4)
        found = _distinct(images)
        pixels = (images if found is None else images[found[0]]).to(self.linear.weight.dtype)
        if not observations.is_floating_point():
            pixels = pixels.div_(255)
        encoded = self.linear(self.convolutions(pixels).flatten(1))
        if found is not None:
            encoded = encoded[found[1]]
        encoded = encoded.unflatten(0, observations.shape[:-3])
        return encoded.tanh() if self.tanh else encoded


def _distinct(images: Tensor) -> tuple[Tensor, Tensor] | None:
    """Of images ``[N, C, H, W]`` those that differ, and which of them each is; None where most of them do.

    None as well where looking is not worth it or not possible: on a GPU, under the compiler, for few images.
    """
    count = len(images)
    if (
        images.dtype != torch.uint8
        or images.device.type != "cpu"
        or count < 8
        or torch.compiler.is_compiling()
    ):
        return None
    if images[0].numel() % 8:
        return None
    words = images.reshape(count, -1).view(torch.int64)
    for step in (16, 1):  # a look at a part tells most batches that have nothing in common
        part = words[:, ::step]
        draw = torch.Generator().manual_seed(0)
        factors = torch.randint(-(2**63), 2**63 - 1, (part.shape[1],), generator=draw)
        keys, which = torch.unique((part * factors).sum(1), return_inverse=True)
        if 2 * len(keys) > count:
            return None
    chosen = torch.empty(len(keys), dtype=torch.int64).scatter_(0, which, torch.arange(count))
    return (chosen, which) if torch.equal(words, words[chosen[which]]) else None


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
