"""Acting with the recurrent baseline: a step passes the LSTM once, and its state is kept."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from rate.acting.segments import check_finite
from rate.lstm import BCLSTM
from rate.state import SegmentState


class RecurrentReader:
    """Keeps the LSTM's state of B environments.

    Args:
        model: copied now, in evaluation mode.
        batch_size: B.
    """

    backend = "torch"

    def __init__(self, model: BCLSTM, batch_size: int) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        config = model.config
        trailing = () if config.action == "discrete" else (config.action_size,)
        dtype = torch.int64 if config.action == "discrete" else torch.float32
        self._first = self.model.initial_state(batch_size)
        self._state = self._first
        device = self._memory.device
        self._no_actions = torch.zeros(batch_size, 0, *trailing, dtype=dtype, device=device)

    @property
    def _memory(self) -> Tensor:
        assert self._state.memory is not None
        return self._state.memory

    def reset(self, mask: np.ndarray) -> None:
        """Starts an episode in the environments of ``mask``, bool ``[B]``."""
        fresh = torch.from_numpy(mask).to(self._memory.device)
        self._state = self._state.keep_memory_where(fresh, self._first)

    def read(self, observations: Tensor, returns: Tensor) -> Tensor:
        """Predictions ``[B, A]`` at observations ``[B, *shape]``; the returns-to-go ``[B]`` are not read."""
        check_finite(observations)
        out = self.model(observations[:, None], self._no_actions, returns[:, None, None], self._state)
        self._state = out.state
        return out.predictions[:, 0]

    def record(self, actions: Tensor) -> None:
        """What was done at the last observations, ``[B]`` or ``[B, A]``."""
        self._state = self.model.acted(self._state, actions)

    def state(self, env: int) -> SegmentState:
        """The state that the next step of ``env`` starts with."""
        return self._state.rows(slice(env, env + 1))

    def arrays(self) -> dict[str, np.ndarray]:
        """All that acting on needs."""
        return {"memory": self._memory.cpu().numpy()}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes over what :meth:`arrays` gave.

        Raises:
            ValueError: if it is of another model.
        """
        mine, given = self.arrays()["memory"], arrays.get("memory")
        if given is None or given.shape != mine.shape or given.dtype != mine.dtype:
            raise ValueError("state must be of this model, got one whose memory does not fit")
        self._state = SegmentState(torch.from_numpy(given.copy()).to(self._memory.device), [])
