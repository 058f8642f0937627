"""The memory retention gate as its equation says it. The specification.

M' = W_o . MultiHead(Q = W_q M, K = W_k act(U), V = W_v act(U)) + b_o      biases on all four maps
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from rate_kernels.gate.parameters import GateParameters

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "none": lambda x: x,
}


def retention_gate(
    memory: Tensor, update: Tensor, parameters: GateParameters, num_heads: int, activation: str
) -> Tensor:
    """See :func:`rate_kernels.retention_gate`; arguments are taken as checked."""
    written = ACTIVATIONS[activation](update)
    query = F.linear(memory, parameters.query_weight, parameters.query_bias)
    key = F.linear(written, parameters.key_weight, parameters.key_bias)
    value = F.linear(written, parameters.value_weight, parameters.value_bias)
    query, key, value = (
        x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )  # [B, H, m, d_head]
    scores = query @ key.mT * query.shape[-1] ** -0.5
    kept = (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)
    return F.linear(kept, parameters.output_weight, parameters.output_bias)
