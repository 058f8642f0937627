"""Players of the pendulums: an estimate of angle and velocity, energy until near the top, then a linear rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from rate.envs.popgym.experts.base import TaskPlayer

_STEP, _FASTEST, _TORQUE = 0.05, 8.0, 2.0
_PULL, _TURN = 15.0, 3.0
"""Angular acceleration by gravity, 3 g / 2 l, and by torque, 3 / m l^2."""


def advance(angle: np.ndarray, velocity: np.ndarray, torque: float) -> tuple[np.ndarray, np.ndarray]:
    """One step of Gymnasium's pendulum; the angle is 0 at the top."""
    velocity = np.clip(velocity + _STEP * (_PULL * np.sin(angle) + _TURN * torque), -_FASTEST, _FASTEST)
    return angle + _STEP * velocity, velocity


def torque(angle: float, velocity: float) -> np.ndarray:
    """Swings up and holds: float32 ``[1]``."""
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    if abs(angle) < 0.5:
        wanted = -(12 * angle + 3 * velocity)
    else:
        energy = velocity**2 / 2 + _PULL * (np.cos(angle) - 1)  # 0 for what just reaches the top
        wanted = -_TORQUE * np.sign(energy) * np.sign(velocity or 1.0)
    return np.clip([wanted], -_TORQUE, _TORQUE).astype(np.float32)


class PositionOnlyPendulumPlayer(TaskPlayer):
    """The velocity is what the angle changed by: the package moves the angle by the new velocity."""

    def first(self, values: np.ndarray) -> None:
        self._angle, self._velocity = float(np.arctan2(values[1], values[0])), 0.0

    def later(self, values: np.ndarray, action: Any) -> None:
        angle = float(np.arctan2(values[1], values[0]))
        moved = (angle - self._angle + np.pi) % (2 * np.pi) - np.pi
        self._angle, self._velocity = angle, moved / _STEP

    def act(self) -> np.ndarray:
        return torque(self._angle, self._velocity)


class NoisyPositionOnlyPendulumPlayer(TaskPlayer):
    """A particle filter: the dynamics are known, and what is seen weighs a thousand guesses of the state."""

    _PARTICLES = 1000

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._sigma = float(np.max(self.task.noise_sigma))

    def first(self, values: np.ndarray) -> None:
        self._angle = self.rng.uniform(-np.pi, np.pi, self._PARTICLES)
        self._velocity = self.rng.uniform(-1, 1, self._PARTICLES)
        self._weigh(values)

    def later(self, values: np.ndarray, action: Any) -> None:
        self._angle, self._velocity = advance(self._angle, self._velocity, float(action[0]))
        self._angle += self.rng.normal(0, 0.01, self._PARTICLES)
        self._velocity += self.rng.normal(0, 0.05, self._PARTICLES)
        self._weigh(values)

    def act(self) -> np.ndarray:
        center = float(np.arctan2(np.sin(self._angle).mean(), np.cos(self._angle).mean()))
        return torque(center, float(self._velocity.mean()))

    def _weigh(self, values: np.ndarray) -> None:
        """Draws the particles anew, by the likelihood of what is seen. A value at its bound was cut there."""
        logs = np.zeros(self._PARTICLES)
        for seen, expected in zip(values, (np.cos(self._angle), np.sin(self._angle)), strict=True):
            logs -= ((seen - expected) / self._sigma) ** 2 / 2
        weights = np.exp(logs - logs.max())
        edges = np.cumsum(weights / weights.sum())
        places = (np.arange(self._PARTICLES) + self.rng.random()) / self._PARTICLES
        chosen = np.minimum(np.searchsorted(edges, places), self._PARTICLES - 1)
        self._angle, self._velocity = self._angle[chosen], self._velocity[chosen]
