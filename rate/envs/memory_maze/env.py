"""Memory Maze: find the object of the colour shown, again and again, in a maze that must be remembered."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from rate.envs.arguments import switch, whole_number
from rate.envs.memory_maze.package import tasks

NONE, FORWARD, LEFT, RIGHT, FORWARD_LEFT, FORWARD_RIGHT = range(6)
LIMITS = {9: 1000, 11: 2000, 13: 3000, 15: 4000}
"""Steps of an episode by size of the maze."""
_TARGETS = {9: 3, 11: 4, 13: 5, 15: 6}


class MemoryMaze(gymnasium.Env[Any, np.int64]):
    """A ball rolls through a maze of rooms. In each of some rooms lies an object of another colour.

    The picture's border has the colour of the object that is wanted. Touching it earns 1, and another one is wanted.
    Maze and objects stay where they are for the whole episode: who remembers them is faster the second time.

    Observation: uint8 ``[64, 64, 3]``, the view ahead. With ``extra_observations`` a dict of it, ``"image"``, and,
    in cells of the maze counted from its lower left corner:
    ``agent_pos``, ``agent_dir``, ``target_pos``, ``target_vec`` float64 ``[2]``; ``targets_pos``, ``targets_vec``
    float64 ``[targets, 2]``; ``target_color`` float64 ``[3]``; ``maze_layout`` uint8 ``[size, size]``, 1 where there
    is no wall, second coordinate first. The ``vec`` are as the agent sees them.

    Action, ``Discrete(6)``: 0 nothing, 1 forward, 2 left, 3 right, 4 forward and left, 5 forward and right; held for a
    quarter of a second.

    An episode is truncated after ``max_steps`` steps; it has no other end. The first reset takes seconds, later ones
    half of that. Drawing needs EGL or OSMesa, see :func:`rate.envs.memory_maze.package.tasks`.

    Args:
        size: cells along a side, one of :data:`LIMITS`.
        max_steps: steps of an episode, at most and by default that of the size.
        extra_observations: whether observations say what the picture does not.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ValueError, TypeError: for an argument out of range or of the wrong type.
        ImportError: where pictures cannot be drawn.
        gymnasium.error.ResetNeeded: when an episode that has ended, or not begun, is stepped.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - as Gymnasium does

    def __init__(
        self,
        size: int = 9,
        max_steps: int | None = None,
        extra_observations: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if size not in LIMITS:
            raise ValueError(f"size must be one of {', '.join(map(str, LIMITS))}, got {size!r}")
        self.size = size
        self.max_steps = (
            LIMITS[size] if max_steps is None else whole_number("max_steps", max_steps, at_least=1)
        )
        if self.max_steps > LIMITS[size]:
            raise ValueError(f"max_steps must be at most {LIMITS[size]} at size {size}, got {max_steps}")
        self.extra_observations = switch("extra_observations", extra_observations)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
        self.render_mode = render_mode
        self._make = getattr(tasks(), f"memory_maze_{size}x{size}")
        image = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
        self.observation_space = _with_extras(image, size) if self.extra_observations else image
        self.action_space = gymnasium.spaces.Discrete(6)
        self._maze: Any = None
        self._seen: dict[str, np.ndarray] = {}
        self._t, self._running = 0, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in another maze."""
        super().reset(seed=seed)
        if self._maze is None:
            self._maze = self._make(seed=0, global_observables=True)
            for target in self._maze.task._targets:
                _look_at_all_contacts_at_once(target)
        _seed(self._maze, *self.np_random.integers(2**31 - 1, size=2).tolist())
        self._t, self._running = 0, True
        return self._observation(self._maze.reset()), {}

    def step(self, action: np.int64 | int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Roll for a quarter of a second; returns (observation, reward, terminated, truncated, info)."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("the episode is over or not begun: call reset() before step()")
        if not 0 <= action < 6:
            raise ValueError(
                "action must be 0 (nothing), 1 (forward), 2 (left), 3 (right), 4 (forward and left) or 5 (forward and "
                f"right), got {action!r}"
            )
        moment = self._maze.step(int(action))
        self._t += 1
        terminated = bool(moment.last() and moment.discount == 0)  # the physics went astray
        truncated = not terminated and self._t >= self.max_steps
        self._running = not (terminated or truncated)
        return self._observation(moment), float(moment.reward), terminated, truncated, {}

    def surroundings(self) -> dict[str, np.ndarray] | None:
        """The extra observations; None where no episode is running."""
        return self._seen if self._running else None

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The picture, uint8 ``[64, 64, 3]``; None without a render mode."""
        return None if self.render_mode is None or not self._seen else self._seen["image"].copy()

    def close(self) -> None:
        """Frees what draws the pictures."""
        self._running = False
        if self._maze is not None:
            self._maze.close()
            self._maze = None

    def _observation(self, moment: Any) -> Any:
        seen = moment.observation
        self._seen = {name: np.array(value) for name, value in seen.items()}
        return dict(self._seen) if self.extra_observations else self._seen["image"]


def _with_extras(image: gymnasium.spaces.Box, size: int) -> gymnasium.spaces.Dict:
    def reals(*shape: int) -> gymnasium.spaces.Box:
        return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float64)

    targets = _TARGETS[size]
    return gymnasium.spaces.Dict(
        {
            "image": image,
            "agent_pos": reals(2),
            "agent_dir": reals(2),
            "target_pos": reals(2),
            "target_vec": reals(2),
            "targets_pos": reals(targets, 2),
            "targets_vec": reals(targets, 2),
            "target_color": reals(3),
            "maze_layout": gymnasium.spaces.Box(0, 1, (size, size), np.uint8),
        }
    )


def _seed(maze: Any, numbers: int, layout: int) -> None:
    """Makes the next reset follow from two seeds alone.

    The package takes a seed only when it builds a maze's simulation, which takes seconds, for its generator of layouts
    keeps random numbers of its own. With a new generator in its place nothing else need be built anew.
    """
    maze.random_state.seed(numbers)
    arena = maze.task._maze_arena
    old = arena._maze
    kept = (
        "height",
        "width",
        "max_rooms",
        "room_min_size",
        "room_max_size",
        "max_variations",
        "spawns_per_room",
    )
    settings = {name: getattr(old, f"_{name}") for name in (*kept, "objects_per_room")}
    arena._maze = type(old)(**settings, simplify=True, random_seed=layout)


def _look_at_all_contacts_at_once(target: Any) -> None:
    """Half of the simulation's time goes to a loop in Python over all contacts, 150 times a step.

    Stock code then finds one with this target, or, nearly always, none.
    """
    stock = target._update_activation

    def quick(physics: Any) -> None:
        if not target.activated and (physics.data.ptr.contact.geom == target._geom_id).any():
            stock(physics)

    target._update_activation = quick
