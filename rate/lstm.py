"""BC-LSTM, the recurrent baseline: the same encoders and heads around ``torch.nn.LSTM``, blind to returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rate.checks import check_segment
from rate.config import RateConfig
from rate.encoders import action_encoder, action_head, observation_encoder
from rate.layers import Dropout
from rate.model import RateOutput
from rate.pretrained import Pretrained
from rate.state import SegmentState

if TYPE_CHECKING:
    from rate.acting import Actor


class BCLSTM(Pretrained):
    """Behaviour cloning with an LSTM over (observation, previous action).

    One token per step: the encodings of both side by side. What is carried from segment to segment stands where RATE
    has its memory, so that training and acting are the same: ``state.memory`` is ``[B, 2 * num_layers + 1, d_model]``,
    the layers' hidden states, their cell states, and the encoding of the last action. Before an episode's first step
    that is the embedding of "no action"; zeros where actions are continuous.

    Args:
        config: of ``architecture="lstm"``: ``num_layers`` layers of ``d_model`` units.

    Raises:
        ValueError: for a configuration of another architecture.
    """

    def __init__(self, config: RateConfig) -> None:
        super().__init__()
        if config.architecture != "lstm":
            raise ValueError(f"config.architecture must be 'lstm' for BCLSTM, got {config.architecture!r}")
        self.config = config
        layers = config.num_layers
        self.observation_encoder = observation_encoder(config)
        self.action_encoder = action_encoder(config)
        self.head = action_head(config)
        self.dropout = Dropout(config.dropout)
        between = config.dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(2 * config.d_model, config.d_model, layers, batch_first=True, dropout=between)

    def initial_state(self, batch_size: int = 1) -> SegmentState:
        """The state before an episode's first step."""
        weight = next(self.lstm.parameters())
        zeros = weight.new_zeros(batch_size, 2 * self.config.num_layers, self.config.d_model)
        if self.config.action == "discrete":
            none = torch.full((batch_size, 1), self.config.action_size, device=weight.device)
            before = self.action_encoder(none)
        else:
            before = zeros[:, :1]
        return SegmentState(torch.cat([zeros, before.to(zeros.dtype)], dim=1), [])

    def forward(
        self, observations: Tensor, actions: Tensor, returns_to_go: Tensor, state: SegmentState | None = None
    ) -> RateOutput:
        """Reads one segment; arguments and result are those of :meth:`rate.RATE.forward`.

        ``returns_to_go`` are not read. With K - 1 actions the state lacks the last: see :meth:`acted`.

        Raises:
            ValueError, TypeError: an argument does not fit; the message names it.
        """
        check_segment(self.config, observations, actions, returns_to_go, None, None)
        batch, steps = observations.shape[:2]
        rows, d = 2 * self.config.num_layers + 1, self.config.d_model
        if state is None:
            state = self.initial_state(batch)
        memory = state.memory
        if memory is None or tuple(memory.shape) != (batch, rows, d):
            got = None if memory is None else list(memory.shape)
            raise ValueError(f"state.memory must be {[batch, rows, d]}, got {got}")
        hidden, cell = (part.transpose(0, 1).contiguous() for part in memory[:, :-1].chunk(2, dim=1))
        acted = torch.cat([memory[:, -1:], self.action_encoder(actions).to(memory.dtype)], dim=1)
        observed = self.observation_encoder(observations).to(memory.dtype)
        tokens = torch.cat([observed, acted[:, :steps]], dim=-1)
        out, (hidden, cell) = self.lstm(self.dropout(tokens), (hidden, cell))
        carried = torch.cat([hidden.transpose(0, 1), cell.transpose(0, 1)], dim=1).to(memory.dtype)
        return RateOutput(
            self.head(self.dropout(out)), SegmentState(torch.cat([carried, acted[:, -1:]], dim=1), [])
        )

    def acted(self, state: SegmentState, actions: Tensor) -> SegmentState:
        """``state`` once the last action is known: ``[B]`` int64 or ``[B, A]``."""
        assert state.memory is not None
        last = self.action_encoder(actions[:, None]).to(state.memory.dtype)
        return SegmentState(torch.cat([state.memory[:, :-1], last], dim=1), [])

    def actor(self, batch_size: int = 1, backend: str | None = None, **options: Any) -> Actor:
        """Acts one environment step at a time in ``batch_size`` environments; see :class:`rate.Actor`."""
        from rate.acting import Actor

        return Actor(self, batch_size, backend, **options)
