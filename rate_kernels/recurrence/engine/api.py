"""The public acting engine: checks its arguments, chooses a backend, keeps its state."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from rate_kernels import backends
from rate_kernels.recurrence.engine import cuda, native, state
from rate_kernels.recurrence.engine.inputs import TokenInput, check_tokens
from rate_kernels.recurrence.engine.reference import ReferenceEngine
from rate_kernels.recurrence.engine.shape import RecurrenceShape

BACKENDS = ("native", "reference")


def obstacles(device: torch.device) -> dict[str, str | None]:
    """Per backend, in order of preference: why it cannot run on ``device``, or None when it can."""
    return {"native": native.obstacle(device), "reference": None}


class RecurrenceOutput(NamedTuple):
    """Of every environment's last new token; zeros where it has none.

    ``hidden [B, d_model]``: what the last layer gives. ``predictions [B, action_size]``: logits, or actions in units
    of the environment; meant for observation tokens.
    """

    hidden: Tensor
    predictions: Tensor


class SegmentRecurrence:
    """Reads the tokens of B environments one by one, and carries memory and cache from segment to segment.

    A new token passes all layers once; keys and values of what came before are kept. Positions are those of
    ``shift="signed"``, so it gives what reading the whole segment gives (RATE, arXiv 2306.09459; Transformer-XL,
    1901.02860). Environments may stand anywhere in their segments. Token number t of a segment is, by t % 3, a
    return-to-go, an observation or an action.

    Args:
        shape: sizes and switches.
        parameters: as ``shape.parameter_shapes()``; float32 or float64, on one device. They are copied.
        batch_size: environments B, >= 1.
        backend: ``"native"`` (float32) or ``"reference"``; the first that can run by default.
        weights: dtype in which the parameters are kept, their own by default; ``torch.bfloat16`` halves what a step of
            the native engine reads of them on CUDA. Sums, keys, values and the state stay in float32.

    Attributes:
        backend: the one that runs.

    Raises:
        ValueError, TypeError: an argument does not fit.
        BackendUnavailable: the named backend cannot run here.

    One engine serves one thread at a time; several engines may run in several threads, and the native one runs
    without the interpreter's lock.
    """

    def __init__(
        self,
        shape: RecurrenceShape,
        parameters: Mapping[str, Tensor],
        batch_size: int,
        *,
        backend: str | None = None,
        weights: torch.dtype | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        shape.check_parameters(parameters)
        first = parameters["content_bias"]
        found = obstacles(first.device)
        on_cuda = first.device.type == "cuda"
        if found["native"] is None and first.dtype != torch.float32:
            found["native"] = f"it computes in float32, the parameters are {first.dtype}"
        if found["native"] is None and on_cuda:
            found["native"] = cuda.shape_obstacle(shape, batch_size, first.device)
        if weights not in (None, first.dtype):
            found["reference"] = f"it keeps parameters in their own {first.dtype}, not in {weights}"
            found["native"] = found["native"] or (None if on_cuda else found["reference"])
        self.backend = backends.choose("SegmentRecurrence", found, backend)
        self.shape, self.batch_size = shape, batch_size
        self.dtype, self.device = first.dtype, first.device
        self._engine: native.NativeEngine | ReferenceEngine
        if self.backend == "reference":
            self._engine = ReferenceEngine(shape, parameters, batch_size)
        elif on_cuda:
            self._engine = cuda.CudaEngine(shape, parameters, batch_size, weights=weights or first.dtype)
        else:
            self._engine = native.NativeEngine(shape, parameters, batch_size)
        self._checksum = _checksum(parameters)  # now: the caller's own tensors may change
        self._everyone = torch.ones(batch_size, dtype=torch.bool)
        self._nothing = torch.zeros(batch_size, dtype=torch.int64)

    @property
    def tokens(self) -> Tensor:
        """Tokens read of every environment's running segment, int64 ``[B]`` on the CPU."""
        return self._engine.state.tokens.to("cpu", torch.int64, copy=True)

    @torch.no_grad()
    def reset(self, mask: Tensor | None = None) -> None:
        """Starts an episode in the environments of ``mask``, bool ``[B]`` on the CPU; in all by default."""
        mask = self._everyone if mask is None else self._checked(mask, "mask", torch.bool)
        self._engine.reset(mask)

    @torch.no_grad()
    def step(self, count: Tensor, tokens: TokenInput) -> RecurrenceOutput:
        """Reads ``count`` new tokens of every environment.

        Args:
            count: int64 ``[B]`` on the CPU, 0 to 3; 0 leaves an environment as it is.
            tokens: the new tokens; values of environments that have no such token now are not read.

        Raises:
            ValueError: something does not fit, a segment would hold more than ``segment_tokens``, or a value
                that would be read is NaN, infinite or out of range: the message names the environment. Nothing
                has changed then.
            RuntimeError: an environment was never reset.
        """
        check_tokens(tokens, self.shape, self.batch_size, self.dtype, self.device)
        return RecurrenceOutput(*self._engine.step(self._checked(count, "count", torch.int64), tokens))

    @torch.no_grad()
    def end_segment(
        self, mask: Tensor | None = None, count: Tensor | None = None, tokens: TokenInput | None = None
    ) -> None:
        """Writes memory, rolls the cache and begins the next segment in the environments of ``mask``.

        Args:
            mask: bool ``[B]`` on the CPU; all by default.
            count: int64 ``[B]``, tokens that are read first, 0 to 3; none by default.
            tokens: those tokens.

        Raises:
            As :meth:`step`.
        """
        mask = self._everyone if mask is None else self._checked(mask, "mask", torch.bool)
        count = self._nothing if count is None else self._checked(count, "count", torch.int64)
        tokens = TokenInput() if tokens is None else tokens
        check_tokens(tokens, self.shape, self.batch_size, self.dtype, self.device)
        self._engine.end_segment(mask, count, tokens)

    # --- On the device alone ----------------------------------------------------------------------

    @torch.no_grad()
    def launch_step(self, count: Tensor, tokens: TokenInput, output: RecurrenceOutput) -> None:
        """:meth:`step` of the native engine on CUDA without a word to the host: a launch on the current stream.

        It can be recorded by ``torch.cuda.graph``; run it once before. A graph reads ``count``, ``tokens`` and writes
        ``output`` where they lie now.

        Args:
            count: int64 ``[B]`` on the engine's device.
            tokens: as for :meth:`step`; contiguous.
            output: float32, contiguous; rows of environments without a new token are left as they are.

        Raises:
            BackendUnavailable: the engine is another one.
            ValueError, TypeError: something does not fit. What is wrong with values and counts changes nothing, and
                is raised by :meth:`raise_if_refused`.
        """
        engine = self._launching("launch_step")
        check_tokens(tokens, self.shape, self.batch_size, self.dtype, self.device)
        sizes = {"count": (), "hidden": (self.shape.d_model,), "predictions": (self.shape.action_size,)}
        for (name, size), tensor in zip(sizes.items(), (count, *output), strict=True):
            kind = torch.int64 if name == "count" else torch.float32
            fits = (
                tensor.shape == (self.batch_size, *size) and tensor.dtype == kind and tensor.is_contiguous()
            )
            if not fits or tensor.device != self._engine.state.memory.device:
                raise ValueError(
                    f"{name} must be {kind} {[self.batch_size, *size]} on {self.device}, contiguous, "
                    f"got {tensor.dtype} {list(tensor.shape)} on {tensor.device}"
                )
        engine.launch_step(count, tokens, *output)

    def raise_if_refused(self, count: Tensor) -> None:
        """Waits for the last :meth:`launch_step` and raises what :meth:`step` would have raised for ``count``."""
        self._launching("raise_if_refused").raise_if_refused(count)

    def _launching(self, name: str) -> cuda.CudaEngine:
        if not isinstance(self._engine, cuda.CudaEngine):
            raise backends.BackendUnavailable(
                f"{name} needs the native engine on CUDA, this one is {self.backend} on {self.device}"
            )
        return self._engine

    # --- The state --------------------------------------------------------------------------------

    def memory(self) -> Tensor | None:
        """The running segment's read memory, ``[B, m, d_model]``, a copy; None without memory tokens."""
        return self._engine.state.memory.clone() if self.shape.num_memory else None

    def cache(self, env: int) -> list[Tensor]:
        """Per layer the hidden states that environment ``env`` sees of earlier segments, ``[c, d_model]``, copies."""
        if not 0 <= env < self.batch_size:
            raise IndexError(f"env must be in 0 .. {self.batch_size - 1}, got {env}")
        stop = self.shape.cache_len
        first = stop - int(self._engine.state.cached[env])
        return [layer[env, first:stop].clone() for layer in self._engine.state.hidden]

    def state_bytes(self) -> bytes:
        """Everything that acting on needs but the parameters: for another process, or another backend."""
        return state.to_bytes(self._engine.state, self.shape, self._checksum)

    @torch.no_grad()
    def load_state_bytes(self, data: bytes) -> None:
        """Takes over a state of :meth:`state_bytes`.

        Raises:
            ValueError: the bytes are damaged or of another model, dtype or number of environments; nothing has
                changed then.
        """
        state.load_bytes(data, self._engine.state, self.shape, self._checksum)

    def _checked(self, values: Tensor, name: str, dtype: torch.dtype) -> Tensor:
        if values.shape != (self.batch_size,) or values.dtype != dtype or values.device.type != "cpu":
            raise ValueError(
                f"{name} must be {dtype} [{self.batch_size}] on the CPU, "
                f"got {values.dtype} {list(values.shape)} on {values.device}"
            )
        return values.contiguous()


def _checksum(parameters: Mapping[str, Tensor]) -> int:
    checksum = 0
    for name in sorted(parameters):
        values = parameters[name].detach().cpu().contiguous().view(-1).view(torch.uint8)
        checksum = zlib.crc32(values.numpy().data, checksum)
    return checksum
