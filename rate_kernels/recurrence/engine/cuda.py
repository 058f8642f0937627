"""Acting through the extension's CUDA half: a launch per call, weights in float32 or bfloat16, sums in float32.

What a call may be refused for is decided on the device, where the counters are. ``step`` and ``end_segment`` read the
answer back, and so wait for the launch; ``launch_step`` and ``launch_end_segment`` leave it on the device, wait for
nothing, and can be recorded in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor

from rate_kernels.recurrence import native as extension
from rate_kernels.recurrence.engine.inputs import TokenInput
from rate_kernels.recurrence.engine.native import (
    NativeEngine,
    addresses,
    numbers,
    parameter_block,
    state_block,
)
from rate_kernels.recurrence.engine.shape import RecurrenceShape

WEIGHTS = (torch.float32, torch.bfloat16)


def shape_obstacle(shape: RecurrenceShape, batch_size: int, device: torch.device) -> str | None:
    """Why the engine cannot run a model of this shape on ``device``, or None when it can."""
    try:
        with torch.cuda.device(device):
            extension._extension().CudaEngine(numbers(shape), False, batch_size, 0)
    except ValueError as error:
        return str(error)
    return None


class CudaEngine(NativeEngine):
    """See :class:`rate_kernels.SegmentRecurrence`; shapes and dtypes of arguments are taken as checked.

    Args:
        weights: dtype the parameters are kept and read in, float32 or bfloat16.
        library: the extension, or what behaves like it.
        threads: of a block; 0 lets the engine choose.
    """

    def __init__(
        self,
        shape: RecurrenceShape,
        parameters: Mapping[str, Tensor],
        batch_size: int,
        *,
        weights: torch.dtype = torch.float32,
        library: ModuleType | None = None,
        threads: int = 0,
    ) -> None:
        if weights not in WEIGHTS:
            raise ValueError(f"weights must be torch.float32 or torch.bfloat16, got {weights}")
        self.shape, self._library = shape, library or extension._extension()
        self._parameters = parameter_block(shape, parameters).to(weights)
        self._device = device = self._parameters.device
        self._block, self.state = state_block(shape, batch_size, device)
        with torch.cuda.device_of(self._block):
            self._engine = self._library.CudaEngine(
                numbers(shape), weights == torch.bfloat16, batch_size, threads
            )
        angles = torch.empty(self._engine.angles())
        self._engine.fill_angles(angles.data_ptr())
        self._angles = angles.to(device)
        self._scratch = torch.empty(self._engine.scratch(), device=device)
        self._report = torch.zeros(2, dtype=torch.int32, device=device)
        memory = (self._parameters, self._block, self._angles, self._scratch, self._report)
        self._engine.attach(*(x.data_ptr() for x in memory))

    def _launch(self, name: str, *arguments: object) -> None:
        if self._device.type != "cuda":
            return getattr(self._engine, name)(*arguments, 0)
        with torch.cuda.device(self._device):
            getattr(self._engine, name)(*arguments, torch.cuda.current_stream().cuda_stream)

    def reset(self, mask: Tensor) -> None:
        """Starts an episode in the environments of ``mask``, bool ``[B]``."""
        held = mask.to(self._device)
        self._launch("reset", held.data_ptr())

    def step(self, count: Tensor, tokens: TokenInput) -> tuple[Tensor, Tensor]:
        """Reads ``count`` (int64 ``[B]``) new tokens: hidden and predictions of the last one, zeros where none."""
        hidden = torch.zeros(len(count), self.shape.d_model, device=self._device)
        predictions = torch.zeros(len(count), self.shape.action_size, device=self._device)
        self.launch_step(count.to(self._device), tokens, hidden, predictions)
        self.raise_if_refused(count)
        return hidden, predictions

    def launch_step(
        self, count: Tensor, tokens: TokenInput, hidden: Tensor | None, predictions: Tensor | None
    ) -> None:
        """:meth:`step` that reads nothing back: one launch on the current stream, to be recorded or waited for.

        Args:
            count: int64 ``[B]`` on the engine's device.
            tokens: contiguous; they, count and the outputs must stay where they are while a graph replays.
            hidden: float32 ``[B, d_model]`` or None; rows of environments without a new token are left as they are.
            predictions: float32 ``[B, action_size]`` or None, likewise.
        """
        held, inputs = addresses(count, tokens)
        outputs = (0 if x is None else x.data_ptr() for x in (hidden, predictions))
        self._launch("step", inputs, *outputs)
        del held

    def end_segment(self, mask: Tensor, count: Tensor, tokens: TokenInput) -> None:
        """Reads the last tokens, writes memory and rolls the cache in the environments of ``mask``, bool ``[B]``."""
        self.launch_end_segment(mask.to(self._device), count.to(self._device), tokens)
        self.raise_if_refused(count)

    def launch_end_segment(self, mask: Tensor, count: Tensor, tokens: TokenInput) -> None:
        """:meth:`end_segment` that reads nothing back; ``mask`` and ``count`` on the engine's device."""
        held, inputs = addresses(count, tokens)
        self._launch("end_segment", mask.data_ptr(), inputs)
        del held

    def raise_if_refused(self, count: Tensor) -> None:
        """Waits for the last launch and raises what it was refused for; ``count`` as it was given, on any device."""
        answer = self._library.CudaEngine.refusal(int(self._report[0]))
        if answer is not None:
            raise self._refusal(answer, count)
