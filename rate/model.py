"""RATE: a transformer that reads an episode segment by segment and carries memory between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from rate.checks import check_segment
from rate.config import RateConfig
from rate.encoders import action_encoder, action_head, observation_encoder
from rate.layers import Dropout, RetentionGate, transformer_block
from rate.pretrained import Pretrained
from rate.state import SegmentState
from rate_kernels import SegmentLayout, pack_segment, roll_cache
from rate_kernels.attention import api as attention
from rate_kernels.gate import api as gate
from rate_kernels.recurrence import api as recurrence

if TYPE_CHECKING:
    from rate.acting import Actor


class RateOutput(NamedTuple):
    """What one segment gives.

    Args:
        predictions: ``[B, K, A]``: logits of discrete actions, or continuous actions, read at the observation tokens.
        state: memory and cache for the next segment.
    """

    predictions: Tensor
    state: SegmentState


_pytree._register_namedtuple(RateOutput, serialized_type_name="rate.RateOutput")


class RATE(Pretrained):
    """The Recurrent Action Transformer with Memory (arXiv 2306.09459).

    With the settings of :class:`RateConfig` it is also the published family's DT, RMT, TrXL and GTrXL.

    Args:
        config: the model's settings.

    Raises:
        ValueError: for a configuration of another architecture.
    """

    def __init__(self, config: RateConfig) -> None:
        super().__init__()
        if config.architecture != "transformer":
            raise ValueError(
                f"config.architecture must be 'transformer' for RATE, got {config.architecture!r}"
            )
        self.config = config
        d, m = config.d_model, config.num_memory
        # The kernels' backend, for every operation that has it; None, and the others, choose by themselves.
        self.backend: str | None = None
        self.return_encoder = nn.Linear(1, d)
        self.observation_encoder = observation_encoder(config)
        self.action_encoder = action_encoder(config)
        self.head = action_head(config)
        self.dropout = Dropout(config.dropout)
        # Transformer-XL's u and v, shared by all layers.
        self.content_bias = nn.Parameter(torch.empty(config.num_heads, config.d_head))
        self.position_bias = nn.Parameter(torch.empty(config.num_heads, config.d_head))
        nn.init.xavier_uniform_(self.content_bias)
        nn.init.xavier_uniform_(self.position_bias)
        self.layers = nn.ModuleList(transformer_block(config) for _ in range(config.num_layers))
        self.final_norm = nn.LayerNorm(d) if config.block == "pre_norm" else nn.Identity()
        self.memory = nn.Parameter(torch.randn(m, d)) if m else None
        self.gate = RetentionGate(config) if m and config.gate_heads else None

    def initial_state(self, batch_size: int = 1) -> SegmentState:
        """The state before an episode's first segment: the learned memory, an empty cache."""
        d = self.config.d_model
        memory = None if self.memory is None else self.memory.expand(batch_size, -1, -1)
        layers = self.config.num_layers if self.config.cache_len else 0
        return SegmentState(memory, [self.content_bias.new_zeros(batch_size, 0, d) for _ in range(layers)])

    def forward(
        self,
        observations: Tensor,
        actions: Tensor,
        returns_to_go: Tensor,
        state: SegmentState | None = None,
        *,
        padding: Tensor | None = None,
        write_memory: bool = True,
    ) -> RateOutput:
        """Reads one segment.

        Args:
            observations: ``[B, K, *observation_shape]``: float vectors, uint8 (or float) images, int64 indices.
            actions: ``[B, K]`` int64 or ``[B, K, A]`` float, or K - 1 of them while the last is not known yet.
            returns_to_go: ``[B, K, 1]`` float.
            state: from the segment before; None starts an episode.
            padding: int64 ``[B]``, steps at the segment's start that are padding and seen by nobody.
            write_memory: False leaves the write-memory tokens out; the returned state is then the one passed in.

        Raises:
            ValueError, TypeError: an argument does not fit; the message names it.
        """
        check_segment(self.config, observations, actions, returns_to_go, state, padding)
        if state is None:
            state = self.initial_state(observations.shape[0])
        return self._read(observations, actions, returns_to_go, state, padding, write_memory)[0]

    def _read(
        self,
        observations: Tensor,
        actions: Tensor,
        returns_to_go: Tensor,
        state: SegmentState,
        padding: Tensor | None = None,
        write_memory: bool = True,
    ) -> tuple[RateOutput, Tensor]:
        """What :meth:`forward` gives for arguments that fit, and the last layer's output ``[B, L, d]``."""
        tokens = self._embed(observations, actions, returns_to_go)
        layout = self._layout(state, write_memory)
        packed = pack_segment(state.memory, *tokens, layout, backend=self._backend(recurrence.BACKENDS))
        last, per_layer = self._transform(self.dropout(packed), state, layout, padding)
        hidden = self.dropout(self.final_norm(last))
        m = layout.num_memory
        predictions = self.head(hidden[:, m : m + sum(x.shape[1] for x in tokens)][:, 1::3])
        if write_memory:
            state = self._next_state(hidden, per_layer, state)
        return RateOutput(predictions, state), last

    def _embed(
        self, observations: Tensor, actions: Tensor, returns_to_go: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = self.return_encoder.weight.dtype
        returns = self.return_encoder(returns_to_go.to(dtype) / self.config.return_scale)
        if self.config.return_tanh:
            returns = returns.tanh()
        observed, acted = self.observation_encoder(observations), self.action_encoder(actions)
        # Under autocast the encoders answer in a lower precision; the residual stream keeps the parameters'.
        return returns.to(dtype), observed.to(dtype), acted.to(dtype)

    def _layout(self, state: SegmentState, write_memory: bool) -> SegmentLayout:
        cached = state.cache[0].shape[1] if state.cache else 0
        return SegmentLayout(self.config.num_memory, write_memory, cached, self.config.read_cache)

    def _backend(self, known: tuple[str, ...]) -> str | None:
        return self.backend if self.backend in known else None

    def _transform(
        self, x: Tensor, state: SegmentState, layout: SegmentLayout, padding: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """All layers; returns the last layer's output and the input of every layer."""
        key_start = None if padding is None else 3 * padding
        backend = self._backend(attention.BACKENDS)
        no_cache = x.new_zeros(x.shape[0], 0, x.shape[2])
        inputs = []
        for index, layer in enumerate(self.layers):
            inputs.append(x)
            cache = state.cache[index].to(x.dtype) if state.cache else no_cache
            x = layer(x, cache, self.content_bias, self.position_bias, layout, key_start, backend)
        return x, inputs

    def _next_state(self, hidden: Tensor, per_layer: list[Tensor], state: SegmentState) -> SegmentState:
        memory = state.memory
        if memory is not None:
            written = hidden[:, -self.config.num_memory :]
            if self.gate is None:
                memory = written
            else:
                memory = self.gate(memory, written, self._backend(gate.BACKENDS))
        cache = state.cache
        if cache:
            old = [layer.to(per_layer[0].dtype) for layer in cache]
            cache = roll_cache(
                old, per_layer, self.config.cache_len, backend=self._backend(recurrence.BACKENDS)
            )
        return SegmentState(memory, cache)

    def actor(self, batch_size: int = 1, backend: str | None = None, **options: Any) -> Actor:
        """Acts one environment step at a time in ``batch_size`` environments; see :class:`rate.Actor`."""
        from rate.acting import Actor

        return Actor(self, batch_size, backend, **options)
