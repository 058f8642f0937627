"""The public memory retention gate: checks its arguments, chooses a backend, runs it."""

from __future__ import annotations

import torch
from torch import Tensor

from rate_kernels import backends, triton_support
from rate_kernels.gate import reference, triton
from rate_kernels.gate.parameters import GateParameters

BACKENDS = ("triton", "reference")


def obstacles(device: torch.device) -> dict[str, str | None]:
    """Per backend, in order of preference: why it cannot run on ``device``, or None when it can."""
    found = {"triton": triton_support.obstacle(device), "reference": None}
    if device.type == "cpu":  # where Triton's interpreter is for tests: last
        found = {name: found[name] for name in reversed(BACKENDS)}
    return found


def retention_gate(
    memory: Tensor,
    update: Tensor,
    parameters: GateParameters,
    *,
    num_heads: int,
    activation: str = "relu",
    backend: str | None = None,
) -> Tensor:
    """The memory retention valve: the memory before a segment queries what the segment wrote.

    ``M' = W_o MultiHead(W_q M, W_k act(U), W_v act(U)) + b_o``, scores over ``sqrt(d / num_heads)``, no mask and no
    residual (RATE, arXiv 2306.09459, variant MRV-CA-2).

    Args:
        memory: ``M [B, m, d]``, the memory before the segment.
        update: ``U [B, m, d]``, the outputs at the write-memory positions.
        parameters: eight tensors of the same dtype and device.
        num_heads: divides d.
        activation: applied to ``update``: ``"relu"``, ``"leaky_relu"``, ``"tanh"`` or ``"none"``.
        backend: ``"triton"`` (CUDA; float32, bfloat16 or float16, at most 64 tokens and a d of 512) or
            ``"reference"``; the first that can run this call by default.

    With ``"triton"`` an entry that is not finite may reach others of the batch. Under autocast it multiplies float32
    tensors in autocast's dtype and keeps float32 for everything else.

    Returns:
        The memory after the segment, ``[B, m, d]``.

    Raises:
        ValueError: an argument's shape or value does not fit.
        TypeError: an argument's dtype or device does not fit.
        BackendUnavailable: the named backend cannot run here.
    """
    _check(memory, update, parameters, num_heads, activation)
    found = obstacles(memory.device)
    if found["triton"] is None:  # it runs here: does it take this call?
        found["triton"] = triton.obstacle_of_call(memory)
    chosen = backends.choose("retention_gate", found, backend)
    run = {"triton": triton, "reference": reference}[chosen].retention_gate
    return run(memory, update, parameters, num_heads, activation)


def _check(
    memory: Tensor, update: Tensor, parameters: GateParameters, num_heads: int, activation: str
) -> None:
    if memory.dim() != 3:
        raise ValueError(f"memory must be [B, m, d], got {list(memory.shape)}")
    if update.shape != memory.shape:
        raise ValueError(f"update must be {list(memory.shape)} as memory is, got {list(update.shape)}")
    d = memory.shape[-1]
    if num_heads < 1 or d % num_heads:
        raise ValueError(f"num_heads must divide d = {d}, got {num_heads}")
    if activation not in reference.ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(reference.ACTIVATIONS)}, got {activation!r}")
    for name, tensor in (("update", update), *parameters._asdict().items()):
        if name != "update":
            expected = [d, d] if name.endswith("weight") else [d]
            if list(tensor.shape) != expected:
                raise ValueError(f"parameters.{name} must be {expected}, got {list(tensor.shape)}")
        if tensor.dtype != memory.dtype:
            raise TypeError(f"{name} must have memory's dtype {memory.dtype}, got {tensor.dtype}")
        if tensor.device != memory.device:
            raise TypeError(f"{name} must be on memory's device {memory.device}, got {tensor.device}")
