"""What the model returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.models.decision_transformer.modeling_decision_transformer import DecisionTransformerOutput


@dataclass
class RateOutput(DecisionTransformerOutput):
    """A ``DecisionTransformerOutput`` with the memory after the window.

    Args:
        state_preds: ``[B, K, Ds]``.
        action_preds: ``[B, K, Da]``.
        return_preds: ``[B, K, 1]``.
        hidden_states: if asked for, of the embeddings and of every layer, each ``[B, 3K, d]``.
        attentions: if asked for, of every layer: ``[B, H, 3K, 3K]``, or with memory ``[B, S, H, L, L]``, of each
            row's S segments over read memory, three tokens per step and write memory.
        last_hidden_state: ``[B, 3K, d]``, after the last norm.
        memory: ``[B, m, d]`` after the last segment that each row's window completes, with its gradient; None
            without memory tokens.
    """

    memory: torch.Tensor | None = None
