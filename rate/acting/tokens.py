"""Acting token by token: every step passes its own two or three tokens through the layers, and no others."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rate.acting.export import recurrence_parameters, recurrence_shape
from rate.state import SegmentState
from rate_kernels.recurrence import SegmentRecurrence, TokenInput
from rate_kernels.recurrence.engine.api import BACKENDS

if TYPE_CHECKING:
    from rate.model import RATE


class TokenReader:
    """Feeds :class:`rate_kernels.SegmentRecurrence` the steps of B environments, and ends their segments.

    Args:
        model: its parameters are copied now; images pass a copy of its encoder.
        batch_size: B.
        backend: of the recurrence; the model's own where it is None and the recurrence has it.
    """

    def __init__(self, model: RATE, batch_size: int, backend: str | None) -> None:
        config = model.config
        if backend is None and model.backend in BACKENDS:
            backend = model.backend
        parameters = recurrence_parameters(model)
        if model.content_bias.dtype not in (torch.float32, torch.float64):  # half precisions act in float32
            parameters = {name: tensor.float() for name, tensor in parameters.items()}
        self.engine = SegmentRecurrence(recurrence_shape(config), parameters, batch_size, backend=backend)
        self.backend = self.engine.backend
        self.encoder = None
        if config.observation == "image":
            self.encoder = copy.deepcopy(model.observation_encoder).eval().requires_grad_(False)
            self.encoder.to(self.engine.dtype)
        self.segment_length, self.write_last_action = config.segment_length, config.write_last_action
        self.position = np.zeros(batch_size, dtype=np.int64)  # steps of the running segment already acted
        shape, dtype = (
            ((), torch.int64) if config.action == "discrete" else ((config.action_size,), torch.float32)
        )
        self.actions = torch.zeros(
            batch_size, *shape, dtype=dtype, device=self.engine.device
        )  # of the last step
        self._one = torch.ones(batch_size, dtype=torch.int64)

    def reset(self, mask: np.ndarray) -> None:
        """Starts an episode in the environments of ``mask``, bool ``[B]``."""
        self.engine.reset(torch.from_numpy(mask))
        self.position[mask] = 0

    def read(self, observations: Tensor, returns: Tensor) -> Tensor:
        """Predictions ``[B, A]`` at observations ``[B, *shape]`` with returns-to-go float32 ``[B]``."""
        full = self.position == self.segment_length
        if full.any():
            self.engine.end_segment(torch.from_numpy(full), self._one, TokenInput(actions=self.actions))
            self.position[full] = 0
        if self.encoder is not None:
            observations = self.encoder(observations)
        count = torch.from_numpy(np.where(self.position == 0, 2, 3))
        out = self.engine.step(count, TokenInput(returns, observations, self.actions))
        self.position += 1
        if not self.write_last_action:
            full = self.position == self.segment_length
            if full.any():
                self.engine.end_segment(torch.from_numpy(full))
                self.position[full] = 0
        return out.predictions

    def record(self, actions: Tensor) -> None:
        """What was done at the last observations, ``[B]`` or ``[B, A]``."""
        self.actions.copy_(actions)

    def state(self, env: int) -> SegmentState:
        """Memory and cache that the running segment of ``env`` started with."""
        memory = self.engine.memory()
        return SegmentState(
            None if memory is None else memory[env : env + 1],
            [layer[None] for layer in self.engine.cache(env)],
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """All that acting on needs."""
        engine = np.frombuffer(self.engine.state_bytes(), dtype=np.uint8)
        return {"position": self.position, "actions": self.actions.cpu().numpy(), "engine": engine}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes over what :meth:`arrays` gave.

        Raises:
            ValueError: if it is of another model.
        """
        self.engine.load_state_bytes(arrays["engine"].tobytes())
        self.position[:] = arrays["position"]
        self.actions.copy_(torch.from_numpy(arrays["actions"]))
