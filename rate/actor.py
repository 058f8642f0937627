"""Acting one environment step at a time, in many environments at once.

The running segment is read again at every step; memory and cache are carried over when it is full. Environments may
stand at different steps of their segments: those that stand at the same step are read together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rate.state import SegmentState

if TYPE_CHECKING:
    from rate.model import RATE


class Actor:
    """Keeps, for every environment, its return-to-go, its running segment and its memory.

    Args:
        model: acts in evaluation mode; the model itself is left as it is.
        batch_size: number of environments, B.
        backend: backend of the model's operations; None lets each choose.
        temperature: 0 takes the most likely discrete action, more samples from ``softmax(logits / temperature)``.
        generator: source of the samples.

    Raises:
        ValueError: for a batch size below 1 or a negative temperature.
    """

    def __init__(
        self,
        model: RATE,
        batch_size: int = 1,
        backend: str | None = None,
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {temperature}")
        self.model, self.batch_size, self.backend = model, batch_size, backend
        self.temperature, self.generator = temperature, generator
        config = model.config
        self._device = model.content_bias.device
        steps = config.segment_length
        observed = {"vector": torch.float32, "image": torch.uint8, "discrete": torch.int64}[
            config.observation
        ]
        self._observations = self._zeros(steps, *config.observation_shape, dtype=observed)
        if config.action == "discrete":
            self._actions = self._zeros(steps, dtype=torch.int64)
        else:
            self._actions = self._zeros(steps, config.action_size, dtype=torch.float32)
        self._returns = self._zeros(steps, 1, dtype=torch.float32)
        self._return_to_go = np.zeros(batch_size)
        self._position = np.zeros(batch_size, dtype=np.int64)  # steps of the running segment already acted
        self._cached = np.zeros(batch_size, dtype=np.int64)  # valid rows, at the end of the cache
        self._acted = np.zeros(batch_size, dtype=bool)  # since the environment's last reset
        self._ready = np.zeros(batch_size, dtype=bool)
        self._memory = (
            None if model.memory is None else self._zeros(*model.memory.shape, dtype=model.memory.dtype)
        )
        layers = config.num_layers if config.cache_len else 0
        self._cache = [
            self._zeros(config.cache_len, config.d_model, dtype=model.content_bias.dtype)
            for _ in range(layers)
        ]

    def _zeros(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(self.batch_size, *shape, dtype=dtype, device=self._device)

    def reset(self, target_return: Any, env_ids: Any = None) -> None:
        """Starts an episode in all environments, or in ``env_ids``.

        Args:
            target_return: the return asked for; a number, or one per environment reset.
            env_ids: indices of the environments to reset, or a boolean mask ``[B]``.

        Raises:
            ValueError: if ``target_return`` does not fit or is not finite.
            IndexError: for an environment that is not there.
        """
        ids = np.arange(self.batch_size) if env_ids is None else np.atleast_1d(_to_numpy(env_ids))
        if ids.dtype == bool:
            if ids.shape != (self.batch_size,):
                raise ValueError(
                    f"env_ids must be a mask [{self.batch_size}] or indices, got {list(ids.shape)}"
                )
            ids = np.flatnonzero(ids)
        if ids.size and (ids.min() < 0 or ids.max() >= self.batch_size):
            raise IndexError(f"env_ids must be in 0 .. {self.batch_size - 1}, got {ids.tolist()}")
        target = _to_numpy(target_return).astype(np.float64).reshape(-1)
        if target.size not in (1, ids.size) or not np.isfinite(target).all():
            raise ValueError(f"target_return must be one finite number or {ids.size}, got {target_return}")
        self._return_to_go[ids] = target
        self._position[ids] = self._cached[ids] = 0
        self._acted[ids] = False
        self._ready[ids] = True
        if self._memory is not None and self.model.memory is not None:
            self._memory[ids] = self.model.memory.detach()

    @torch.inference_mode()
    def act(self, observation: Any, reward: Any = None) -> Any:
        """The next action of every environment.

        Args:
            observation: ``[B, *observation_shape]``, numpy array or tensor.
            reward: ``[B]``, what the last action earned; taken off the return-to-go. Ignored for an environment
                that has not acted since its reset.

        Returns:
            int64 ``[B]`` or float32 ``[B, A]``: a numpy array for a numpy observation, else a tensor.

        Raises:
            ValueError: if a shape does not fit or an observation or reward is not finite.
            RuntimeError: if an environment was never reset.
        """
        if not self._ready.all():
            raise RuntimeError(
                f"environment {int(np.flatnonzero(~self._ready)[0])} must be reset before it acts"
            )
        observed = self._checked_observation(observation)
        if reward is not None:
            self._earn(reward)
        training = self.model.training
        previous_backend, self.model.backend = self.model.backend, self.backend or self.model.backend
        self.model.eval()
        try:
            for ids in self._groups(np.flatnonzero(self._position == self.model.config.segment_length)):
                self._end_segment(ids)
            rows = np.arange(self.batch_size)
            self._observations[rows, self._position] = observed
            now = torch.as_tensor(self._return_to_go, dtype=torch.float32, device=self._device)
            self._returns[rows, self._position, 0] = now
            action = torch.zeros_like(self._actions[:, 0])
            for ids in self._groups(rows):
                action[ids] = self._step(ids)
        finally:
            self.model.train(training)
            self.model.backend = previous_backend
        self._acted[:] = True
        return action.cpu().numpy() if not isinstance(observation, Tensor) else action

    @property
    def return_to_go(self) -> np.ndarray:
        """What is left of each environment's target, float64 ``[B]``."""
        return self._return_to_go.copy()

    def _checked_observation(self, observation: Any) -> Tensor:
        observed = torch.as_tensor(
            np.asarray(observation) if not isinstance(observation, Tensor) else observation
        )
        expected = self._observations.shape[2:]
        if tuple(observed.shape) != (self.batch_size, *expected):
            raise ValueError(
                f"observation must be {[self.batch_size, *expected]}, got {list(observed.shape)}"
            )
        if self.model.config.observation == "image" and observed.dtype != torch.uint8:
            raise ValueError(f"observation must be uint8 for an image, got {observed.dtype}")
        observed = observed.to(self._device, self._observations.dtype)
        if observed.is_floating_point():
            bad = ~observed.flatten(1).isfinite().all(1)
            if bad.any():
                raise ValueError(f"observation of environment {int(bad.nonzero()[0])} is not finite")
        return observed

    def _earn(self, reward: Any) -> None:
        earned = _to_numpy(reward).astype(np.float64).reshape(-1)
        if earned.shape != (self.batch_size,):
            raise ValueError(f"reward must be [{self.batch_size}], got {list(earned.shape)}")
        bad = self._acted & ~np.isfinite(earned)
        if bad.any():
            raise ValueError(f"reward of environment {int(np.flatnonzero(bad)[0])} is not finite")
        self._return_to_go[self._acted] -= earned[self._acted]

    def _groups(self, ids: np.ndarray) -> list[np.ndarray]:
        """``ids`` split into those that can be read in one batch: same step of the segment, same cache length."""
        keys = np.stack([self._position[ids], self._cached[ids]], axis=1)
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
        self._position[ids] = 0

    def _end_segment(self, ids: np.ndarray) -> None:
        """Reads a full segment, last action included, for the memory and cache it leaves."""
        out = self.model(self._observations[ids], self._actions[ids], self._returns[ids], self._state(ids))
        self._carry(ids, out.state)

    def _step(self, ids: np.ndarray) -> Tensor:
        """Actions of environments that stand at the same step."""
        config, t = self.model.config, int(self._position[ids[0]])
        ends_here = not config.write_last_action and t + 1 == config.segment_length
        # In transformer_xl shift the read memory depends on how many tokens follow, the write memory included.
        write = ends_here or config.shift == "transformer_xl"
        out = self.model(
            self._observations[ids, : t + 1],
            self._actions[ids, :t],
            self._returns[ids, : t + 1],
            self._state(ids),
            write_memory=write,
        )
        action = self._choose(out.predictions[:, -1])
        self._actions[ids, t] = action
        self._position[ids] += 1
        if ends_here:
            self._carry(ids, out.state)
        return action

    def _choose(self, predictions: Tensor) -> Tensor:
        if self.model.config.action == "continuous":
            return predictions.float()
        if self.temperature == 0:
            return predictions.argmax(-1)
        probabilities = (predictions.float() / self.temperature).softmax(-1)
        return torch.multinomial(probabilities, 1, generator=self.generator)[:, 0]


def _to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
