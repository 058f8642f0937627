"""What the players have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rate.envs.popgym.env import POPGym


class TaskPlayer:
    """Plays one episode at a time; see :class:`rate.envs.policy.Player`.

    Args:
        env: the environment it plays in; only its constants and its encodings are looked at.
    """

    def __init__(self, env: POPGym) -> None:
        self.task: Any = env.inner
        self._decode = env.decode
        self.rng = np.random.default_rng(0)

    def begin(self, seed: int) -> None:
        """An episode begins."""
        self.rng = np.random.default_rng(seed)

    def see(self, observation: Any, action: Any) -> None:
        """An observation, in the environment's encoding, and the action it followed."""
        values = self._decode(observation)
        if action is None:
            self.first(values)
        else:
            self.later(values, action)

    def first(self, values: np.ndarray) -> None:
        """The episode's first observation."""
        raise NotImplementedError

    def later(self, values: np.ndarray, action: Any) -> None:
        """The observation that followed ``action``."""
        raise NotImplementedError

    def act(self) -> Any:
        """The next action."""
        raise NotImplementedError
