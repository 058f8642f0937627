"""The settings of a model. One class covers the published family, DT, RMT, TrXL, GTrXL and RATE, and BC-LSTM."""

from __future__ import annotations

import dataclasses
import json
import numbers
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rate_kernels.attention.position import SHIFTS
from rate_kernels.gate.reference import ACTIVATIONS

Family = Literal["rate", "rmt", "trxl", "gtrxl", "dt", "dt-long", "bc-lstm"]


@dataclass(frozen=True)
class RateConfig:
    """Settings of a :class:`rate.RATE` model, saved as ``config.json``.

    Observations and actions:
        observation: ``"vector"`` (linear encoder), ``"image"`` (three convolutions) or ``"discrete"`` (embedding).
        observation_shape: ``(size,)`` for vectors, ``(channels, height, width)`` for images, ``()`` for discrete.
        num_observations: number of discrete observations.
        action: ``"discrete"`` (embedding in, logits out) or ``"continuous"`` (linear in, tanh out).
        action_size: number of actions, or size of an action vector.
        action_scale: continuous actions lie in ``[-action_scale, action_scale]``.
        return_scale: returns-to-go are divided by this before they are embedded.
        return_tanh: whether embedded returns-to-go pass a tanh.
        normalize_observations: whether vectors are standardised by a mean and deviation kept with the model.
        image_padding: padding of the three convolutions.
        observation_tanh: whether image encodings pass a tanh.
        action_tanh: whether action encodings pass a tanh.

    Segments and memory:
        segment_length: K, environment steps per segment.
        num_memory: m, memory tokens; 0 for none.
        cache_len: hidden states of earlier segments that each layer sees, in tokens; 0 for none.
        read_cache: whether memory tokens see the cache.
        gate_heads: heads of the memory retention gate; 0 hands memory over as written.
        gate_activation: activation on what was written: relu, leaky_relu, tanh or none.
        write_last_action: whether a segment's last action is part of it when memory is written while acting, as it is
            in training; False reproduces the published order.

    Architecture:
        architecture: ``"transformer"`` (:class:`rate.RATE`), or ``"lstm"`` for the baseline :class:`rate.lstm.BCLSTM`,
            which reads d_model, num_layers and dropout of what follows and nothing of what is above this line but
            observations, actions and segment_length.

    Transformer:
        d_model, num_layers, num_heads, d_head: widths; d_head defaults to d_model / num_heads.
        d_inner: hidden width of the feed-forward part; 0 leaves it out.
        block: ``"pre_norm"``, or ``"published"`` for the blocks of the published code.
        gating: GTrXL's gated recurrent units in place of the residual sums.
        shift: see :class:`rate_kernels.RelativePosition`; ``"transformer_xl"`` for checkpoints trained with it.
        dropout: on embeddings, attention outputs, feed-forward and the last layer's output.
        attention_dropout: on attention weights.

    Raises:
        ValueError: for a value out of range or a combination that does not fit, naming the field.
    """

    observation: Literal["vector", "image", "discrete"] = "vector"
    observation_shape: tuple[int, ...] = (4,)
    num_observations: int = 0
    action: Literal["discrete", "continuous"] = "discrete"
    action_size: int = 4
    action_scale: float = 1.0
    return_scale: float = 1.0
    return_tanh: bool = False
    normalize_observations: bool = False
    image_padding: int = 0
    observation_tanh: bool = True
    action_tanh: bool = False

    segment_length: int = 20
    num_memory: int = 5
    cache_len: int = 0
    read_cache: bool = False
    gate_heads: int = 1
    gate_activation: str = "relu"
    write_last_action: bool = True

    architecture: Literal["transformer", "lstm"] = "transformer"
    d_model: int = 128
    num_layers: int = 3
    num_heads: int = 4
    d_head: int = 0
    d_inner: int = 512
    block: Literal["pre_norm", "published"] = "pre_norm"
    gating: bool = False
    shift: Literal["signed", "transformer_xl"] = "signed"
    dropout: float = 0.1
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        self._check_types()
        object.__setattr__(self, "observation_shape", tuple(self.observation_shape))
        if self.d_head == 0 and self.num_heads > 0:
            object.__setattr__(self, "d_head", self.d_model // self.num_heads)
        self._check()

    def _check_types(self) -> None:
        kinds = {"int": (numbers.Integral, "an integer"), "float": (numbers.Real, "a number")}
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), str(field.type)
            if kind in kinds and (isinstance(value, bool) or not isinstance(value, kinds[kind][0])):
                raise ValueError(f"{field.name} must be {kinds[kind][1]}, got {value!r}")
            if kind == "bool" and not isinstance(value, bool):
                raise ValueError(f"{field.name} must be True or False, got {value!r}")
        shape = self.observation_shape
        if not isinstance(shape, list | tuple) or not all(isinstance(n, numbers.Integral) for n in shape):
            raise ValueError(f"observation_shape must be a tuple of integers, got {shape!r}")

    def _check(self) -> None:
        for name in ("action_size", "segment_length", "d_model", "num_layers", "num_heads", "d_head"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("num_memory", "cache_len", "gate_heads", "d_inner", "image_padding", "num_observations"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("action_scale", "return_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        choices = {
            "observation": ("vector", "image", "discrete"),
            "action": ("discrete", "continuous"),
            "architecture": ("transformer", "lstm"),
            "block": ("pre_norm", "published"),
            "shift": SHIFTS,
            "gate_activation": tuple(ACTIVATIONS),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.d_model % 2:
            raise ValueError(f"d_model must be even, got {self.d_model}")
        if self.num_memory and self.gate_heads and self.d_model % self.gate_heads:
            raise ValueError(f"gate_heads must divide d_model = {self.d_model}, got {self.gate_heads}")
        if self.gating and self.d_inner == 0:
            raise ValueError("d_inner must be at least 1 with gating, got 0")
        rank = {"vector": 1, "image": 3, "discrete": 0}[self.observation]
        if len(self.observation_shape) != rank:
            raise ValueError(
                f"observation_shape must have {rank} numbers for {self.observation} observations, "
                f"got {self.observation_shape}"
            )
        if self.observation == "discrete" and self.num_observations < 1:
            raise ValueError("num_observations must be at least 1 for discrete observations, got 0")

    @classmethod
    def family(cls, name: Family, segments: int = 1, **settings: Any) -> RateConfig:
        """The model called ``name`` in the published family, with ``settings`` for the rest.

        ``dt`` has neither memory nor cache, so each segment stands alone; ``dt-long`` reads all ``segments`` segments
        as one; ``rmt`` has memory tokens without gate or cache; ``trxl`` and ``gtrxl`` have a cache only; ``bc-lstm``
        is an LSTM; ``rate`` takes the settings as they are. A cache defaults to the tokens of ``segments`` segments.
        """
        base = cls(**settings)
        blind = {"num_memory": 0, "gate_heads": 0, "cache_len": 0}
        cached = blind | {"cache_len": base.cache_len or 3 * base.segment_length * segments}
        changes: dict[str, Any] = {
            "rate": {},
            "rmt": {"cache_len": 0, "gate_heads": 0},
            "trxl": cached,
            "gtrxl": cached | {"gating": True},
            "dt": blind,
            "dt-long": blind | {"segment_length": base.segment_length * segments},
            "bc-lstm": blind | {"architecture": "lstm"},
        }
        if name not in changes:
            raise ValueError(f"family must be one of {', '.join(changes)}, got {name!r}")
        return dataclasses.replace(base, **changes[name])

    def to_json(self) -> str:
        """All fields as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> RateConfig:
        """The inverse of ``dataclasses.asdict``.

        Raises:
            ValueError: for a field this version does not know.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(f"config has unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
        return cls(**fields)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RateConfig:
        """Reads ``config.json``, or the one in the folder ``path``.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is not valid.
        """
        file = Path(path)
        file = file / "config.json" if file.is_dir() else file
        if not file.is_file():
            raise FileNotFoundError(f"no config.json at {file}")
        try:
            return cls.from_dict(json.loads(file.read_text()))
        except (ValueError, TypeError) as error:  # not text, not JSON, unknown fields or wrong types
            raise ValueError(f"{file} is not valid: {error}") from None
