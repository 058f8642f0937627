"""Players of the cart-poles: an estimate of the whole state, and a linear-quadratic regulator."""

from __future__ import annotations

from typing import Any

import numpy as np

from rate.envs.popgym.experts.base import TaskPlayer

_GRAVITY, _CART, _POLE, _HALF_LENGTH, _FORCE, _STEP = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
_MASS = _CART + _POLE
_START = 0.05
"""Every number of the state starts evenly between minus and plus this."""


def advance(states: np.ndarray, action: int) -> np.ndarray:
    """One step of Gymnasium's cart-pole.

    States are float64 ``[..., 4]``: position, velocity, angle, angular velocity.
    """
    x, v, angle, turn = np.moveaxis(states, -1, 0)
    sine, cosine = np.sin(angle), np.cos(angle)
    pushed = ((_FORCE if action else -_FORCE) + _POLE * _HALF_LENGTH * turn**2 * sine) / _MASS
    spin = (_GRAVITY * sine - cosine * pushed) / (_HALF_LENGTH * (4 / 3 - _POLE * cosine**2 / _MASS))
    speed = pushed - _POLE * _HALF_LENGTH * spin * cosine / _MASS
    return np.stack([x + _STEP * v, v + _STEP * speed, angle + _STEP * turn, turn + _STEP * spin], -1)


def regulator(push_cost: float = 10.0) -> np.ndarray:
    """Gains float64 ``[4]`` of the force, in units of the cart's own, that keep the pole up and the cart in place."""
    upright, tiny = np.zeros(4), 1e-6
    rest = (advance(upright, 1) + advance(upright, 0)) / 2
    rate = (
        np.stack([(advance(tiny * unit, 1) + advance(tiny * unit, 0)) / 2 - rest for unit in np.eye(4)], 1)
        / tiny
    )
    push = (advance(upright, 1) - advance(upright, 0))[:, None] / 2
    cost = value = np.diag([0.1, 0.1, 10.0, 1.0])
    for _ in range(2000):
        gains = np.linalg.solve(push.T @ value @ push + push_cost, push.T @ value @ rate)
        value = cost + rate.T @ value @ (rate - push @ gains)
    return gains[0]


_GAINS = regulator()


def _push(state: np.ndarray) -> int:
    return int(-_GAINS @ state > 0)


class PositionOnlyCartPolePlayer(TaskPlayer):
    """Velocities are what the positions changed by."""

    def first(self, values: np.ndarray) -> None:
        self._state = np.array([values[0], 0.0, values[1], 0.0])

    def later(self, values: np.ndarray, action: Any) -> None:
        before = self._state
        moved = [(values[0] - before[0]) / _STEP, (values[1] - before[2]) / _STEP]
        # The change tells the velocity before the step; the model of the step makes it that after it.
        self._state = advance(np.array([before[0], moved[0], before[2], moved[1]]), int(action))
        self._state[[0, 2]] = values

    def act(self) -> int:
        return _push(self._state)


class VelocityOnlyCartPolePlayer(TaskPlayer):
    """Positions are what the velocities add up to; the first observation shows positions, unlike all others."""

    def first(self, values: np.ndarray) -> None:
        self._state = np.array([values[0], 0.0, values[1], 0.0])

    def later(self, values: np.ndarray, action: Any) -> None:
        self._state[[0, 2]] += _STEP * self._state[[1, 3]]
        self._state[[1, 3]] = values

    def act(self) -> int:
        return _push(self._state)


class NoisyPositionOnlyCartPolePlayer(TaskPlayer):
    """An extended Kalman filter: the dynamics are known and free of noise, so every observation tells of the start."""

    _UNSURE = 1e-8

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._noise = np.diag(np.asarray(self.task.noise_sigma, np.float64) ** 2)
        self._bound = np.asarray(self.task.observation_space.high, np.float64)

    def first(self, values: np.ndarray) -> None:
        self._state, self._spread = np.zeros(4), np.eye(4) * _START**2 / 3
        self._correct(values)

    def later(self, values: np.ndarray, action: Any) -> None:
        tiny = 1e-5
        around = advance(self._state + tiny * np.concatenate([np.eye(4), -np.eye(4)]), int(action))
        rate = (around[:4] - around[4:]).T / (2 * tiny)
        self._state = advance(self._state, int(action))
        self._spread = rate @ self._spread @ rate.T + np.eye(4) * self._UNSURE
        self._correct(values)

    def act(self) -> int:
        return _push(self._state)

    def _correct(self, values: np.ndarray) -> None:
        seen = self._state[[0, 2]]
        error = self._spread[:, [0, 2]]
        gain = error @ np.linalg.inv(error[[0, 2]] + self._noise)
        self._state = self._state + gain @ (np.asarray(values) - seen)
        self._spread = self._spread - gain @ error.T
