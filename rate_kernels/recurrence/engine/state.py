"""What an engine keeps between calls, seen as tensors, and those tensors as bytes."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rate_kernels.recurrence.engine.shape import RecurrenceShape

VERSION = 1
_MAGIC = b"rate state\n"


@dataclass
class EngineState:
    """The state of B environments. Rows of ``keys``, ``values`` and ``hidden`` are slots of a segment:

        [ cache, right-aligned: cache_len | read memory: m | tokens: n | write memory: m ]

    Args:
        tokens: int64 ``[B]``, tokens of the running segment that have been read.
        cached: int64 ``[B]``, valid rows at the end of the cache.
        read_done: bool ``[B]``, whether the keys and values of the read memory are there; if not they are made
            before the next token's.
        ready: bool ``[B]``, whether it was ever reset.
        memory: ``[B, m, d]``.
        keys: per layer ``[B, slots, H, d_head]``, or in blocks ``[B, slots / n, n, H, d_head]``.
        values: per layer ``[B, slots, H, d_head]``. Slots that nothing was written to hold anything.
        hidden: per layer ``[B, slots, d]``, the layer's input, where there is a cache; else empty.
    """

    tokens: Tensor
    cached: Tensor
    read_done: Tensor
    ready: Tensor
    memory: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    hidden: list[Tensor]

    def counters(self) -> tuple[Tensor, ...]:
        """The four counters."""
        return self.tokens, self.cached, self.read_done, self.ready

    def layers(self) -> list[Tensor]:
        """Keys, then values, then hidden states of every layer."""
        return [*self.keys, *self.values, *self.hidden]


def slots_of(layer: Tensor) -> Tensor:
    """``layer`` with its slots in one dimension; a copy where they come in blocks."""
    return layer.flatten(1, 2) if layer.dim() == 5 else layer


def to_bytes(state: EngineState, shape: RecurrenceShape, checksum: int) -> bytes:
    """``state`` as bytes: what it is of, as a line of JSON, then its numbers. Slots that no environment uses stay out.

    Args:
        checksum: of the parameters that made the state.
    """
    tokens, cached, done, ready = (x.cpu().numpy() for x in state.counters())
    first = shape.cache_len - int(cached.max(initial=0))
    stop = shape.cache_len + shape.num_memory + int(tokens.max(initial=0))
    rows = [slots_of(x)[:, first:stop] for x in state.layers()]
    arrays = [state.memory, *rows]
    numbers = b"".join(np.ascontiguousarray(x.detach().cpu().numpy()).tobytes() for x in arrays)
    counters = np.stack([tokens, cached, done, ready]).astype("<i4").tobytes()
    meta = {
        "version": VERSION,
        "shape": shape.field_values(),
        "dtype": str(state.memory.dtype).removeprefix("torch."),
        "environments": len(tokens),
        "first": first,
        "stop": stop,
        "parameters": checksum,
        "checksum": zlib.crc32(numbers, zlib.crc32(counters)),
    }
    text = json.dumps(meta).encode()
    return b"".join([_MAGIC, struct.pack("<I", len(text)), text, counters, numbers])


def load_bytes(data: bytes, state: EngineState, shape: RecurrenceShape, checksum: int) -> None:
    """Sets ``state`` to what :func:`to_bytes` made bytes of.

    Raises:
        ValueError: if the bytes are not such a state, are damaged, of another version, shape, dtype, number of
            environments or model. ``state`` is then as it was.
    """
    start = len(_MAGIC) + 4
    if not isinstance(data, bytes) or data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise ValueError("state must be bytes from state_bytes(), got something else")
    (length,) = struct.unpack("<I", data[len(_MAGIC) : start])
    try:
        meta = json.loads(data[start : start + length])
        version = meta["version"]
    except (ValueError, KeyError, TypeError):
        raise ValueError("state is damaged: its description cannot be read") from None
    if version != VERSION:
        raise ValueError(f"state must be of version {VERSION}, got version {version}")
    for name, value in shape.field_values().items():
        if meta["shape"].get(name) != value:
            raise ValueError(f"state must be of a model with {name} {value}, got {meta['shape'].get(name)}")
    batch, dtype = len(state.tokens), str(state.memory.dtype).removeprefix("torch.")
    for name, ours in (("environments", batch), ("dtype", dtype)):
        if meta[name] != ours:
            raise ValueError(f"state must have {name} {ours}, got {meta[name]}")
    if meta["parameters"] != checksum:
        raise ValueError("state must be of this model, got that of one with other parameters")
    body = data[start + length :]
    rows = slice(meta["first"], meta["stop"])
    sizes = [
        x.numel() * x.element_size() for x in (state.memory, *(slots_of(x)[:, rows] for x in state.layers()))
    ]
    if len(body) != 16 * batch + sum(sizes) or zlib.crc32(body) != meta["checksum"]:
        raise ValueError("state is damaged: its numbers are not those that were saved")
    counters = np.frombuffer(body, "<i4", 4 * batch).reshape(4, batch)
    for to, values in zip(state.counters(), counters, strict=True):
        to.copy_(torch.from_numpy(values.copy()))
    at = 16 * batch
    for target, size in zip((state.memory, *state.layers()), sizes, strict=True):
        whole = target if target is state.memory else slots_of(target)
        part = whole if target is state.memory else whole[:, rows]
        values = np.frombuffer(body, dtype, size // target.element_size(), at).reshape(part.shape)
        part.copy_(torch.from_numpy(values.copy()))
        if target.dim() == 5:
            target.copy_(whole.view(target.shape))
        at += size
