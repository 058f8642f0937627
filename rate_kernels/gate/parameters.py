"""The eight parameters of the memory retention gate."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class GateParameters(NamedTuple):
    """Weights ``[d, d]`` (out, in) and biases ``[d]`` of the query, key, value and output maps."""

    query_weight: Tensor
    query_bias: Tensor
    key_weight: Tensor
    key_bias: Tensor
    value_weight: Tensor
    value_bias: Tensor
    output_weight: Tensor
    output_bias: Tensor
