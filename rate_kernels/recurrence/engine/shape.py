"""The sizes and switches of a model that acts, and the tensors it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from rate_kernels.gate.reference import ACTIVATIONS
from rate_kernels.segment import SegmentLayout

BLOCKS = ("pre_norm", "published", "published_gated")
OBSERVATIONS = ("embedded", "vector", "discrete")
ACTIONS = ("discrete", "continuous")


@dataclass(frozen=True)
class RecurrenceShape:
    """What fixes the work of :class:`rate_kernels.SegmentRecurrence` and the shapes of its parameters.

    Args:
        d_model, num_layers, num_heads, d_head: widths; d_model is even.
        d_inner: hidden width of the feed-forward part; 0 leaves it out.
        num_memory: m, memory tokens; 0 for none.
        segment_tokens: tokens a segment holds at most: three per step.
        cache_len: rows of earlier segments that each layer sees.
        read_cache: whether memory tokens see the cache.
        gate_heads, gate_activation: of the retention gate; 0 heads hand memory over as written.
        block: ``"pre_norm"``: ``x + attention(norm(x))`` and so on; ``"published"``: ``norm(2 x + attention(x))``, then
            ``norm(x + feed_forward(x))``; ``"published_gated"``: the published GTrXL layer, with two norms before
            attention (one for the cache) and a residual inside its unit.
        gated: GTrXL's units in place of residual sums.
        observation: ``"vector"``, ``"discrete"``, or ``"embedded"`` where the caller encodes them.
        observation_size: numbers of a vector, or of discrete observations; 0 when embedded.
        normalized: whether vectors are standardised by ``observation_mean`` and ``observation_std``.
        action, action_size: ``"discrete"`` or ``"continuous"``, and how many.
        action_tanh: whether embedded actions pass a tanh.
        action_scale: continuous actions lie in ``[-action_scale, action_scale]``.
        return_scale: returns-to-go are divided by this.

    Raises:
        ValueError: for a value out of range or a combination that does not fit, naming the field.
    """

    d_model: int
    num_layers: int
    num_heads: int
    d_head: int
    d_inner: int
    num_memory: int
    segment_tokens: int
    cache_len: int = 0
    read_cache: bool = False
    gate_heads: int = 0
    gate_activation: str = "relu"
    block: str = "pre_norm"
    gated: bool = False
    observation: str = "embedded"
    observation_size: int = 0
    normalized: bool = False
    action: str = "discrete"
    action_size: int = 1
    action_tanh: bool = False
    action_scale: float = 1.0
    return_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_layers", "num_heads", "d_head", "segment_tokens", "action_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("d_inner", "num_memory", "cache_len", "gate_heads", "observation_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("action_scale", "return_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        choices = {
            "block": BLOCKS,
            "gate_activation": tuple(ACTIVATIONS),
            "observation": OBSERVATIONS,
            "action": ACTIONS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.d_model % 2:
            raise ValueError(f"d_model must be even, got {self.d_model}")
        if self.num_memory and self.gate_heads and self.d_model % self.gate_heads:
            raise ValueError(f"gate_heads must divide d_model = {self.d_model}, got {self.gate_heads}")
        if self.block != "pre_norm" and self.gated != (self.block == "published_gated"):
            raise ValueError(f"gated must be {not self.gated} in {self.block} blocks, got {self.gated}")
        if self.gated and not self.d_inner:
            raise ValueError("d_inner must be at least 1 with gated, got 0")
        if (self.observation == "embedded") != (self.observation_size == 0):
            raise ValueError(
                f"observation_size must be {'0' if self.observation == 'embedded' else 'at least 1'} for "
                f"{self.observation} observations, got {self.observation_size}"
            )

    @property
    def slots(self) -> int:
        """Places of keys and values: the cache, read memory, tokens, write memory."""
        return self.cache_len + 2 * self.num_memory + self.segment_tokens

    def layout(self, write_memory: bool) -> SegmentLayout:
        """Who sees whom in a segment with a full cache."""
        return SegmentLayout(self.num_memory, write_memory, self.cache_len, self.read_cache)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter by name, with its shape; linear maps are ``[out, in]`` as in ``torch.nn.Linear``."""
        d, inner = self.d_model, self.num_heads * self.d_head
        shapes: dict[str, tuple[int, ...]] = {
            "content_bias": (self.num_heads, self.d_head),
            "position_bias": (self.num_heads, self.d_head),
        }
        if self.num_memory:
            shapes["memory"] = (self.num_memory, d)
        if self.block == "pre_norm":
            shapes |= {"final_norm_weight": (d,), "final_norm_bias": (d,)}
        if self.num_memory and self.gate_heads:
            for name in ("query", "key", "value", "output"):
                shapes |= {f"gate_{name}_weight": (d, d), f"gate_{name}_bias": (d,)}
        shapes |= {"return_weight": (d, 1), "return_bias": (d,)}
        if self.observation == "vector":
            shapes |= {"observation_weight": (d, self.observation_size), "observation_bias": (d,)}
            if self.normalized:
                shapes |= dict.fromkeys(("observation_mean", "observation_std"), (self.observation_size,))
        elif self.observation == "discrete":
            shapes["observation_weight"] = (self.observation_size, d)
        if self.action == "continuous":
            shapes |= {"action_weight": (d, self.action_size), "action_bias": (d,)}
            shapes["head_bias"] = (self.action_size,)
        else:
            shapes["action_weight"] = (self.action_size + 1, d)
        shapes["head_weight"] = (self.action_size, d)
        layer: dict[str, tuple[int, ...]] = {"attention_norm_weight": (d,), "attention_norm_bias": (d,)}
        if self.block == "published_gated":
            layer |= {"inner_norm_weight": (d,), "inner_norm_bias": (d,)}
        layer |= {"qkv": (3 * inner, d), "position": (inner, d), "output": (d, inner)}
        if self.d_inner:
            layer |= {"feed_forward_norm_weight": (d,), "feed_forward_norm_bias": (d,)}
            layer |= {"feed_forward_in": (self.d_inner, d), "feed_forward_in_bias": (self.d_inner,)}
            layer |= {"feed_forward_out": (d, self.d_inner), "feed_forward_out_bias": (d,)}
        if self.gated:
            for part in ("attention", "feed_forward"):
                layer |= {f"{part}_from_update": (3 * d, d), f"{part}_from_stream": (2 * d, d)}
                layer |= {f"{part}_from_reset": (d, d), f"{part}_gate_bias": (d,)}
        for index in range(self.num_layers):
            shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
        return shapes

    def check_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Raises ValueError or TypeError where ``parameters`` are not those of this shape."""
        expected = self.parameter_shapes()
        for name in [*expected, *parameters]:
            if name not in parameters:
                raise ValueError(f"parameters must hold {name!r} for this shape")
            if name not in expected:
                raise ValueError(f"parameters hold {name!r}, which this shape does not have")
        first = parameters["content_bias"]
        if first.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"parameters must be float32 or float64, got {first.dtype}")
        for name, shape in expected.items():
            tensor = parameters[name]
            if tuple(tensor.shape) != shape:
                raise ValueError(f"parameters[{name!r}] must be {list(shape)}, got {list(tensor.shape)}")
            if tensor.dtype != first.dtype or tensor.device != first.device:
                raise TypeError(
                    f"parameters[{name!r}] must be {first.dtype} on {first.device} as content_bias is, "
                    f"got {tensor.dtype} on {tensor.device}"
                )

    def field_values(self) -> dict[str, object]:
        """All fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
