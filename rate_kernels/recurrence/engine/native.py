"""Acting through the extension built from csrc/: float32 on a CPU.

Parameters are copied once into one block, and the state of all environments lies in another; where each number is, the
extension says. Both are torch's memory: the extension gets their addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rate_kernels.gate.reference import ACTIVATIONS
from rate_kernels.recurrence import native as extension
from rate_kernels.recurrence.engine.inputs import TokenInput, refused
from rate_kernels.recurrence.engine.shape import ACTIONS, BLOCKS, OBSERVATIONS, RecurrenceShape
from rate_kernels.recurrence.engine.state import EngineState

_CHOICES = {
    "block": BLOCKS,
    "gate_activation": (
        "none",
        "relu",
        "leaky_relu",
        "tanh",
    ),  # in the order of csrc/include/rate/engine_shape.h
    "observation": OBSERVATIONS,
    "action": ACTIONS,
}
assert set(_CHOICES["gate_activation"]) == set(ACTIVATIONS)


def obstacle(device: torch.device) -> str | None:
    """Why the engine cannot run on tensors of ``device``, or None when it can."""
    reason = extension.obstacle(device)
    if reason is None and not hasattr(extension._extension(), "Engine"):
        return "the extension was built by a compiler without vector extensions: build it with g++ or clang++"
    return reason


def numbers(shape: RecurrenceShape) -> dict[str, Any]:
    """The fields of ``shape`` as the extension takes them: choices as their place in its lists."""
    fields = shape.field_values()
    return fields | {name: choices.index(str(fields[name])) for name, choices in _CHOICES.items()}


def parameter_block(shape: RecurrenceShape, parameters: Mapping[str, Tensor]) -> Tensor:
    """All parameters in the extension's order, ``[size]``, with the dtype and on the device of ``parameters``."""
    layout = extension._extension().engine_parameters(numbers(shape))
    block = parameters["content_bias"].new_zeros(layout["size"])
    for name, place in layout["places"].items():
        source = parameters[name].detach()
        source = source.t() if place["transposed"] else source
        source = source.reshape(place["size"]) if source.is_contiguous() else _grouped(source, place["size"])
        block.as_strided(place["size"], place["stride"], place["offset"]).copy_(source)
    return block


def _grouped(matrix: Tensor, size: tuple[int, int, int, int]) -> Tensor:
    """``[rows, columns]`` as ``[row groups, rows, column groups, columns]``, a view."""
    row_groups, rows, column_groups, columns = size
    return matrix.unflatten(1, (column_groups, columns)).unflatten(0, (row_groups, rows))


def state_block(shape: RecurrenceShape, batch: int, device: torch.device) -> tuple[Tensor, EngineState]:
    """An engine's memory, zeros ``[batch, stride]`` of float32, and its parts as views."""
    native = extension._extension()
    places, room = native.engine_state(numbers(shape)), native.engine_parameters(numbers(shape))
    block = torch.zeros(batch, places["stride"], device=device)
    stride, slots, key_block = places["stride"], places["slots"], places["key_block"]
    heads, d_head, d, hs = shape.num_heads, shape.d_head, room["d"], room["head_stride"]

    def layers(name: str, size: tuple[int, ...], strides: tuple[int, ...]) -> list[Tensor]:
        first = places["first_layer"] + places[name]
        step = places["layer_stride"]
        return [
            block.as_strided((batch, *size), (stride, *strides), first + index * step)
            for index in range(shape.num_layers)
        ]

    keys = layers(
        "keys",
        (slots // key_block, key_block, heads, d_head),
        (d_head * key_block, 1, slots * d_head, key_block),
    )
    counters = block.view(torch.int32)
    state = EngineState(
        counters[:, 0],
        counters[:, 1],
        counters[:, 2],
        counters[:, 3],
        block.as_strided((batch, shape.num_memory, shape.d_model), (stride, d, 1), places["memory"]),
        keys,
        layers("values", (slots, heads, d_head), (hs, slots * hs, 1)),
        layers("hidden", (slots, shape.d_model), (d, 1)) if shape.cache_len else [],
    )
    return block, state


class NativeEngine:
    """See :class:`rate_kernels.SegmentRecurrence`; shapes and dtypes of arguments are taken as checked."""

    def __init__(self, shape: RecurrenceShape, parameters: Mapping[str, Tensor], batch_size: int) -> None:
        self.shape = shape
        self._parameters = parameter_block(shape, parameters)
        self._block, self.state = state_block(shape, batch_size, self._parameters.device)
        engine = extension._extension().Engine
        self._engine = engine(numbers(shape), self._parameters.data_ptr(), batch_size, self._block.data_ptr())

    def reset(self, mask: Tensor) -> None:
        """Starts an episode in the environments of ``mask``, bool ``[B]``."""
        self._engine.reset(mask.data_ptr())

    def step(self, count: Tensor, tokens: TokenInput) -> tuple[Tensor, Tensor]:
        """Reads ``count`` (int64 ``[B]``) new tokens: hidden and predictions of the last one, zeros where none."""
        hidden = self._parameters.new_zeros(len(count), self.shape.d_model)
        predictions = self._parameters.new_zeros(len(count), self.shape.action_size)
        held, places = addresses(count, tokens)
        answer = self._engine.step(places, hidden.data_ptr(), predictions.data_ptr(), torch.get_num_threads())
        del held  # copies, if any, must outlive the call
        if answer is not None:
            raise self._refusal(answer, count)
        return hidden, predictions

    def end_segment(self, mask: Tensor, count: Tensor, tokens: TokenInput) -> None:
        """Reads the last tokens, writes memory and rolls the cache in the environments of ``mask``, bool ``[B]``."""
        held, places = addresses(count, tokens)
        answer = self._engine.end_segment(mask.data_ptr(), places, torch.get_num_threads())
        del held
        if answer is not None:
            raise self._refusal(answer, count)

    def _refusal(self, answer: tuple[int, int, int], count: Tensor) -> Exception:
        """The error for what the extension refused, as csrc/include/rate/engine.h numbers it."""
        problem, env, kind = answer
        new = int(count[env])
        if problem == 1:
            return ValueError(f"count must be 0 to 3, got {new} for environment {env}")
        if problem == 2:
            return RuntimeError(f"environment {env} must be reset before it acts")
        if problem == 3:
            return ValueError(
                f"count must leave a segment at most {self.shape.segment_tokens} tokens, got {new} for environment "
                f"{env}, whose segment has {int(self.state.tokens[env])}"
            )
        size = self.shape.observation_size if kind == 1 else self.shape.action_size + 1
        what = {4: "is missing", 5: "is not finite", 6: f"is not in 0 .. {size - 1}"}[problem]
        return refused(kind, env, what)


def addresses(count: Tensor, tokens: TokenInput) -> tuple[list[Tensor | None], list[int]]:
    """What the extension reads, contiguous, and its addresses; the tensors must outlive the call."""
    given = (count, tokens.returns, tokens.observations, tokens.actions, tokens.embedded)
    held = [None if x is None else x.contiguous() for x in given]
    return held, [0 if x is None else x.data_ptr() for x in held]
