"""Acting by reading the running segment again at every step, as the published code does.

In ``shift="transformer_xl"`` read-memory rows depend on the segment's total length, so that nothing of a running
segment can be kept. Environments that stand at the same step of their segments are read together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rate.state import SegmentState

if TYPE_CHECKING:
    from rate.model import RATE


def check_finite(observations: Tensor) -> None:
    """Raises ValueError for an observation ``[B, *shape]`` that is NaN or infinite."""
    if observations.is_floating_point():
        bad = ~observations.flatten(1).isfinite().all(1)
        if bad.any():
            raise ValueError(f"observation of environment {int(bad.nonzero()[0])} is not finite")


class SegmentReader:
    """Keeps the running segment of B environments.

    Args:
        model: read in evaluation mode; the model itself is left as it is.
        batch_size: B.
        backend: backend of the model's operations; None lets each choose.
    """

    backend = "segments"

    def __init__(self, model: RATE, batch_size: int, backend: str | None) -> None:
        self.model, self.batch_size, self.operations = model, batch_size, backend
        config = model.config
        steps = config.segment_length
        observed = {"vector": torch.float32, "image": torch.uint8, "discrete": torch.int64}
        self._observations = self._zeros(steps, *config.observation_shape, dtype=observed[config.observation])
        if config.action == "discrete":
            self._actions = self._zeros(steps, dtype=torch.int64)
        else:
            self._actions = self._zeros(steps, config.action_size, dtype=torch.float32)
        self._returns = self._zeros(steps, 1, dtype=torch.float32)
        self.position = np.zeros(batch_size, dtype=np.int64)  # steps of the running segment already acted
        self._cached = np.zeros(batch_size, dtype=np.int64)  # valid rows, at the end of the cache
        dtype = model.content_bias.dtype
        self._memory = None if model.memory is None else self._zeros(*model.memory.shape, dtype=dtype)
        layers = config.num_layers if config.cache_len else 0
        self._cache = [self._zeros(config.cache_len, config.d_model, dtype=dtype) for _ in range(layers)]
        # In published order memory is written with a segment's last observation, before its last action is known.
        self._written: list[tuple[np.ndarray, SegmentState]] = []

    def _zeros(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(self.batch_size, *shape, dtype=dtype, device=self.model.content_bias.device)

    def reset(self, mask: np.ndarray) -> None:
        """Starts an episode in the environments of ``mask``, bool ``[B]``."""
        self.position[mask] = self._cached[mask] = 0
        if self._memory is not None and self.model.memory is not None:
            self._memory[torch.from_numpy(mask)] = self.model.memory.detach()

    def read(self, observations: Tensor, returns: Tensor) -> Tensor:
        """Predictions ``[B, A]`` at observations ``[B, *shape]`` with returns-to-go float32 ``[B]``."""
        check_finite(observations)
        model, training, previous = self.model, self.model.training, self.model.backend
        model.backend = self.operations or previous
        self._written = []
        model.eval()
        try:
            for ids in self._groups(np.flatnonzero(self.position == model.config.segment_length)):
                self._end_segment(ids)
            rows = np.arange(self.batch_size)
            self._observations[rows, self.position] = observations
            self._returns[rows, self.position, 0] = returns
            predictions = torch.empty(0)
            for ids in self._groups(rows):
                found = self._step(ids)
                if not len(predictions):
                    predictions = found.new_empty(self.batch_size, found.shape[1])
                predictions[ids] = found
        finally:
            model.train(training)
            model.backend = previous
        return predictions

    def record(self, actions: Tensor) -> None:
        """What was done at the last observations, ``[B]`` or ``[B, A]``."""
        self._actions[np.arange(self.batch_size), self.position] = actions
        self.position += 1
        for ids, state in self._written:
            self._carry(ids, state)
        self._written = []

    def state(self, env: int) -> SegmentState:
        """Memory and cache that the running segment of ``env`` started with."""
        return self._state(np.array([env]))

    def arrays(self) -> dict[str, np.ndarray]:
        """All that acting on needs."""
        tensors = {"observations": self._observations, "actions": self._actions, "returns": self._returns}
        tensors |= {f"cache{index}": layer for index, layer in enumerate(self._cache)}
        if self._memory is not None:
            tensors["memory"] = self._memory
        arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        return arrays | {"position": self.position, "cached": self._cached}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes over what :meth:`arrays` gave.

        Raises:
            ValueError: if it is of another model.
        """
        mine = self.arrays()
        for name, array in mine.items():
            if name not in arrays or arrays[name].shape != array.shape or arrays[name].dtype != array.dtype:
                raise ValueError(f"state must be of this model, got one whose {name} does not fit")
        self.position[:], self._cached[:] = arrays["position"], arrays["cached"]
        for name, tensor in (
            ("observations", self._observations), ("actions", self._actions), ("returns", self._returns),
            ("memory", self._memory), *((f"cache{index}", layer) for index, layer in enumerate(self._cache)),
        ):  # fmt: skip
            if tensor is not None:
                tensor.copy_(torch.from_numpy(arrays[name]))

    def _groups(self, ids: np.ndarray) -> list[np.ndarray]:
        """``ids`` split into those that can be read in one batch: same step of the segment, same cache length."""
        keys = np.stack([self.position[ids], self._cached[ids]], axis=1)
        _, group = np.unique(keys, axis=0, return_inverse=True)
        return [ids[group == g] for g in range(group.max() + 1)] if ids.size else []

    def _state(self, ids: np.ndarray) -> SegmentState:
        cached = int(self._cached[ids[0]])
        memory = None if self._memory is None else self._memory[ids]
        return SegmentState(memory, [layer[ids, layer.shape[1] - cached :] for layer in self._cache])

    def _carry(self, ids: np.ndarray, state: SegmentState) -> None:
        if self._memory is not None and state.memory is not None:
            self._memory[ids] = state.memory
        for layer, new in zip(self._cache, state.cache, strict=True):
            layer[ids, layer.shape[1] - new.shape[1] :] = new
            self._cached[ids] = new.shape[1]
        self.position[ids] = 0

    def _end_segment(self, ids: np.ndarray) -> None:
        """Reads a full segment, last action included, for the memory and cache it leaves."""
        out = self.model(self._observations[ids], self._actions[ids], self._returns[ids], self._state(ids))
        self._carry(ids, out.state)

    def _step(self, ids: np.ndarray) -> Tensor:
        """Predictions of environments that stand at the same step."""
        config, t = self.model.config, int(self.position[ids[0]])
        # In transformer_xl shift the read memory depends on how many tokens follow, the write memory included.
        out = self.model(
            self._observations[ids, : t + 1],
            self._actions[ids, :t],
            self._returns[ids, : t + 1],
            self._state(ids),
            write_memory=True,
        )
        if not config.write_last_action and t + 1 == config.segment_length:
            self._written.append((ids, out.state))
        return out.predictions[:, -1]
