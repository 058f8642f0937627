"""HalfCheetah, Hopper and Walker2d, version 5 of Gymnasium's, with the time limit in the environment itself."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv

from rate.envs.arguments import whole_number

logger = logging.getLogger("rate")


def _log(message: str) -> None:
    """What the engine warns of; that a body's file is in an old dialect is no news to anybody here."""
    logger.log(logging.DEBUG if "deprecated" in message else logging.WARNING, "mujoco: %s", message)


if mujoco.get_mju_user_warning() is None:  # else it writes MUJOCO_LOG.TXT into the current folder
    mujoco.set_mju_user_warning(_log)


class _Limited(MujocoEnv, gymnasium.utils.EzPickle):
    """Ends episodes after ``max_steps`` steps.

    Observation: float64 ``[D]``, positions without the first, then velocities. Action: float32 ``[A]`` in [-1, 1],
    torques. Reward: speed forward, plus 1 while upright (Hopper, Walker2d), less a little for the torques.

    An episode terminates when the body falls (Hopper, Walker2d) and is truncated after ``max_steps`` steps.

    Args:
        max_steps: steps of an episode; 1000 in the paper.
        render_mode: one of Gymnasium's for MuJoCo, or None. Only pictures need OpenGL.

    Raises:
        ValueError, TypeError: for a number of steps below 1 or not a number.
        gymnasium.error.ResetNeeded: when an episode that has ended, or not begun, is stepped.
    """

    def __init__(self, max_steps: int = 1000, render_mode: str | None = None) -> None:
        self.max_steps = whole_number("max_steps", max_steps, at_least=1)
        self._t, self._running = 0, False
        super().__init__(render_mode=render_mode)  # type: ignore[call-arg]  # the body's own, which comes next
        gymnasium.utils.EzPickle.__init__(self, max_steps=max_steps, render_mode=render_mode)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode, standing."""
        self._t, self._running = 0, True
        return super().reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:  # type: ignore[override]
        """Apply torques; returns (observation, reward, terminated, truncated, info)."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("the episode is over or not begun: call reset() before step()")
        observation, reward, terminated, _, info = super().step(action)
        self._t += 1
        truncated = not terminated and self._t >= self.max_steps
        self._running = not (terminated or truncated)
        return observation, float(reward), bool(terminated), truncated, info


class HalfCheetah(_Limited, HalfCheetahEnv):
    """Run: observations ``[17]``, actions ``[6]``."""

    task_name = "mujoco-halfcheetah"


class Hopper(_Limited, HopperEnv):
    """Hop on one leg: observations ``[11]``, actions ``[3]``."""

    task_name = "mujoco-hopper"


class Walker2d(_Limited, Walker2dEnv):
    """Walk on two legs: observations ``[17]``, actions ``[6]``."""

    task_name = "mujoco-walker2d"
