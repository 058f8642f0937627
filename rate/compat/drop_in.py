"""What the drop-in classes share: memory over windows, acting, and the original's state dicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from rate.compat.acting import Acting
from rate.compat.state_dicts import ReadsOriginal
from rate.compat.windows import Transform, WindowMemory

is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # 2.6 has only the other


class DropIn(ReadsOriginal):
    """A Decision Transformer with memory.

    Attributes:
        last_memory: ``[B, m, d]``, detached: the memory after the last ``forward``, for the ``memory`` of the next
            window; None without memory tokens. Replicas of ``DataParallel`` lose it.
        acting: what acting remembers of the running episode.
    """

    memory: WindowMemory
    acting: Acting
    last_memory: Tensor | None

    def _add_memory(
        self,
        d_model: int,
        window: int | None,
        memory_tokens: int,
        segment_length: int | None,
        gate_heads: int,
    ) -> None:
        """Memory for windows of at most ``window`` steps; by default segments are a third of them, rounded up."""
        if segment_length is None:
            if memory_tokens and window is None:
                raise ValueError(
                    "segment_length must be given with memory_tokens where windows have no length"
                )
            segment_length = -(-(window or 1) // 3)
        self.memory = WindowMemory(d_model, memory_tokens, segment_length, gate_heads)
        self.acting = Acting(segment_length)
        self.last_memory = None

    def reset(self) -> None:
        """Forgets the running episode: the next step that is acted begins anew with what it is given."""
        self.acting.forget()

    def train(self, mode: bool = True) -> Self:
        """As any module's; acting forgets the running episode when the mode changes, since parameters may have."""
        if mode != self.training:
            self.reset()
        return super().train(mode)

    def _load_from_state_dict(self, *arguments, **named) -> None:  # type: ignore[no-untyped-def]
        self.reset()
        super()._load_from_state_dict(*arguments, **named)

    def _read_window(
        self,
        tokens: Tensor,
        transform: Transform,
        timesteps: Tensor,
        real: Tensor | None,
        memory: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """See :class:`WindowMemory`; keeps the memory after the window as ``last_memory``."""
        if memory is not None:
            if not self.memory.memory_tokens:
                raise ValueError("memory must be None where memory_tokens is 0")
            check_shape("memory", memory, (len(tokens), self.memory.memory_tokens, tokens.shape[-1]))
        hidden, after = self.memory(tokens, transform, timesteps, real, memory)
        if not is_exporting():  # an exported program has no attributes
            self.last_memory = None if after is None else after.detach()
        return hidden, after


def check_shape(name: str, tensor: Tensor, expected: Sequence[int | str]) -> None:
    """Raises ValueError where ``tensor`` has not the expected shape; a letter stands for any length."""
    fits = tensor.dim() == len(expected) and all(
        isinstance(want, str) or want == have for want, have in zip(expected, tensor.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} must be [{', '.join(map(str, expected))}], got {list(tensor.shape)}")


def check_timesteps(name: str, timesteps: Tensor, table: int) -> None:
    """Raises where ``timesteps`` are not integers within a table of ``table`` rows.

    Values are read on a CPU only: elsewhere that would wait for the device, which reports them itself.
    """
    if timesteps.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be int64 or int32, got {timesteps.dtype}")
    if timesteps.device.type == "cpu" and timesteps.numel() and not torch.compiler.is_compiling():
        least, most = timesteps.aminmax()
        if least < 0 or most >= table:
            raise ValueError(f"{name} must be from 0 to {table - 1}, got {int(least)} to {int(most)}")
