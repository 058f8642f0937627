"""Acts one environment step at a time: returns-to-go, choices, resets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rate.acting import saving
from rate.acting.export import acts_token_by_token
from rate.acting.recurrent import RecurrentReader
from rate.acting.segments import SegmentReader
from rate.acting.tokens import TokenReader
from rate.lstm import BCLSTM

if TYPE_CHECKING:
    from rate.models import Model

logger = logging.getLogger("rate")


class Actor:
    """Keeps, for every environment, its return-to-go, its running segment and its memory.

    A step costs the same however long the episode: its two or three tokens pass the layers once, and what came before
    in the segment is kept as keys and values. A model in ``shift="transformer_xl"`` cannot act so, for there a new
    token changes what earlier ones gave, nor one with ``return_tanh``; it reads its running segment again at every
    step, and a log line says it.

    Args:
        model: acts in evaluation mode; the model itself is left as it is. Token by token its parameters are those it
            has now: later training does not reach the actor.
        batch_size: number of environments, B.
        backend: ``"native"`` or ``"reference"``, see :class:`rate_kernels.SegmentRecurrence`; for
            ``shift="transformer_xl"`` the backend of the model's operations, without effect on the recurrent baseline.
            None chooses.
        temperature: 0 takes the most likely discrete action, more samples from ``softmax(logits / temperature)``.
        top_k: samples among the k most likely actions only.
        generator: source of the samples.

    Attributes:
        backend: what reads: ``"native"``, ``"reference"``, ``"segments"`` where segments are read again, or
            ``"torch"`` for the recurrent baseline.

    Raises:
        ValueError: for a batch size or top_k below 1 or a negative temperature.
        BackendUnavailable: if the named backend cannot run here.
    """

    def __init__(
        self,
        model: Model,
        batch_size: int = 1,
        backend: str | None = None,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        self.config, self.batch_size = model.config, batch_size
        self.temperature, self.top_k, self.generator = temperature, top_k, generator
        self._device = next(model.parameters()).device
        self._reader: TokenReader | SegmentReader | RecurrentReader
        if isinstance(model, BCLSTM):
            self._reader = RecurrentReader(model, batch_size)
        elif acts_token_by_token(model.config):
            self._reader = TokenReader(model, batch_size, backend)
        else:
            logger.info(
                "acting reads the running segment again at every step: shift is %s, return_tanh is %s",
                model.config.shift,
                model.config.return_tanh,
            )
            self._reader = SegmentReader(model, batch_size, backend)
        self.backend = self._reader.backend
        kinds = {"vector": torch.float32, "image": torch.uint8, "discrete": torch.int64}
        self._observed = kinds[model.config.observation]
        self._return_to_go = np.zeros(batch_size)
        self._acted = np.zeros(batch_size, dtype=bool)  # since the environment's last reset
        self._ready = np.zeros(batch_size, dtype=bool)

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
        mask = np.zeros(self.batch_size, dtype=bool)
        mask[ids.astype(np.int64)] = True
        self._reader.reset(mask)
        self._return_to_go[ids] = target
        self._acted[ids] = False
        self._ready[ids] = True

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
        asked = self._return_to_go if reward is None else self._after(reward)
        returns = torch.from_numpy(asked.astype(np.float32)).to(self._device)
        predictions = self._reader.read(observed, returns)
        self._return_to_go = asked
        action = self._choose(predictions)
        self._reader.record(action)
        self._acted[:] = True
        return action if isinstance(observation, Tensor) else action.cpu().numpy()

    @property
    def return_to_go(self) -> np.ndarray:
        """What is left of each environment's target, float64 ``[B]``."""
        return self._return_to_go.copy()

    def state_bytes(self) -> bytes:
        """The state of all environments, for an actor of the same model and batch size in another process.

        The caller's ``generator`` is not in it.
        """
        mine = {"return_to_go": self._return_to_go, "acted": self._acted, "ready": self._ready}
        kind = np.frombuffer(self._kind().encode(), dtype=np.uint8)
        return saving.to_bytes({"kind": kind} | mine | self._reader.arrays())

    def load_state_bytes(self, data: bytes) -> None:
        """Takes over a state of :meth:`state_bytes`: the next :meth:`act` is what it would have been there.

        Raises:
            ValueError: if the bytes are damaged, of another version, batch size or model; nothing has changed then.
        """
        arrays = saving.from_bytes(data)
        kind = arrays["kind"].tobytes().decode()
        if kind != self._kind():
            raise ValueError(f"state must be of {self._kind()}, got that of {kind}")
        self._reader.load(arrays)
        self._return_to_go = arrays["return_to_go"]
        self._acted[:], self._ready[:] = arrays["acted"], arrays["ready"]

    def _kind(self) -> str:
        readers = {SegmentReader: "segments", TokenReader: "tokens", RecurrentReader: "steps"}
        how = readers[type(self._reader)]
        return f"an actor of {self.batch_size} environments that reads {how}"

    def _checked_observation(self, observation: Any) -> Tensor:
        observed = (
            observation if isinstance(observation, Tensor) else torch.as_tensor(np.asarray(observation))
        )
        expected = (self.batch_size, *self.config.observation_shape)
        if observed.shape != expected:
            raise ValueError(f"observation must be {list(expected)}, got {list(observed.shape)}")
        if self.config.observation == "image" and observed.dtype != torch.uint8:
            raise ValueError(f"observation must be uint8 for an image, got {observed.dtype}")
        return observed.to(self._device, self._observed)

    def _after(self, reward: Any) -> np.ndarray:
        """The returns-to-go once ``reward`` is earned."""
        earned = _to_numpy(reward).astype(np.float64).reshape(-1)
        if earned.shape != (self.batch_size,):
            raise ValueError(f"reward must be [{self.batch_size}], got {list(earned.shape)}")
        earned = np.where(self._acted, earned, 0.0)
        if not np.isfinite(earned).all():
            env = int(np.flatnonzero(~np.isfinite(earned))[0])
            raise ValueError(f"reward of environment {env} is not finite")
        return self._return_to_go - earned

    def _choose(self, predictions: Tensor) -> Tensor:
        if self.config.action == "continuous":
            return predictions.float()
        if self.temperature == 0:
            return predictions.argmax(-1)
        logits = predictions.float() / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            kept, index = logits.topk(self.top_k, dim=-1)
            drawn = torch.multinomial(kept.softmax(-1), 1, generator=self.generator)
            return index.gather(-1, drawn)[:, 0]
        return torch.multinomial(logits.softmax(-1), 1, generator=self.generator)[:, 0]


def _to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
