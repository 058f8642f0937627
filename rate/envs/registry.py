"""Every task by name: how to make its environments, what they show, how they are scored, what the paper reports.

A family is one module with a tuple ``TASKS``, data alone: environments and experts are named, not imported, so the
whole registry can be read without any of the packages the environments need.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from rate.envs.policy import Policy, load_policy
from rate.envs.score import Figure, Score

FAMILIES = {
    "tmaze": "rate.envs.tmaze.tasks",
    "associative-retrieval": "rate.envs.associative_retrieval.tasks",
    "minigrid": "rate.envs.minigrid.tasks",
    "popgym": "rate.envs.popgym.tasks",
    "vizdoom": "rate.envs.vizdoom.tasks",
    "mujoco": "rate.envs.mujoco.tasks",
    "atari": "rate.envs.atari.tasks",
    "memory-maze": "rate.envs.memory_maze.tasks",
}
"""Family to module. The names of a family's tasks begin with the family's."""


@dataclass(frozen=True)
class Task:
    """A task: data, no environment yet.

    Args:
        name: begins with the family's.
        family: key of :data:`FAMILIES`.
        summary: one line.
        entry_point: ``module:callable`` that makes one environment from ``options``.
        observation: what an observation is, and how it is encoded for the model.
        action: what an action is, and how it is encoded.
        score: how an episode's score is made; the paper's figures are of this kind.
        more_scores: other numbers the task is known by.
        target_returns: asked for when acting; the first is the default.
        target_per_segment: whether the paper starts again with the target return at each segment.
        options: keyword arguments of the entry point that are open to choice, with the paper's values.
        arguments: keyword arguments of the entry point that make this task what it is.
        max_steps: limit of an episode with these options; None where there is none but the task's own end.
        side_by_side: how many environments are sensible in one process: fewer where one is heavy.
        temperature: how the paper acts: 0 takes the most likely action, 1 samples.
        protocol: the paper's protocol in words.
        figures: what the paper reports.
        axis: the option along which the paper draws its curve, or None.
        extra: what to install, ``rate-kernels[<extra>]``; None for nothing.
        packages: modules the extra brings, looked for before the environment is made.
        vector_entry_point: ``module:callable`` taking ``num_envs``, the options and ``autoreset_mode``; None for
            copies of the environment side by side.
        expert: ``module:callable`` that makes a :class:`Policy` from a vector environment of the task; None if there
            is none.
        no_expert: why there is none.
        env_id: Gymnasium id in recorded data; ``rate/<name>-v0`` if empty.
    """

    name: str
    family: str
    summary: str
    entry_point: str
    observation: str
    action: str
    score: Score
    target_returns: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    max_steps: int | None = None
    target_per_segment: bool = False
    more_scores: tuple[Score, ...] = ()
    side_by_side: int = 100
    temperature: float = 0.0
    protocol: str = ""
    figures: tuple[Figure, ...] = ()
    axis: str | None = None
    extra: str | None = None
    packages: tuple[str, ...] = ()
    vector_entry_point: str | None = None
    expert: str | None = None
    no_expert: str = ""
    env_id: str = ""

    def __post_init__(self) -> None:
        if not self.env_id:
            object.__setattr__(self, "env_id", f"rate/{self.name}-v0")

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All keyword arguments of the entry point, ``options`` over the task's own.

        Raises:
            ValueError: for an option the task does not have.
        """
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise ValueError(f"{self.name} has no option {name!r}; known are {known}")
        return {**self.arguments, **self.options, **options}

    def spec(self, **options: Any) -> gymnasium.envs.registration.EnvSpec:
        """What a data set keeps: enough to make the environment in a process that never imported this package."""
        return gymnasium.envs.registration.EnvSpec(
            self.env_id, entry_point=self.entry_point, kwargs=self.settings(options)
        )

    def asked(self, target_return: float | None, temperature: float | None) -> tuple[float, float]:
        """What is asked of a model and what it samples at, by default as the paper does."""
        target = self.target_returns[0] if target_return is None else target_return
        return target, self.temperature if temperature is None else temperature

    def drawable(self) -> bool:
        """Whether the environment has pictures to give. Raises ImportError as :func:`make` does."""
        metadata = getattr(_load(self, self.entry_point), "metadata", {})
        return "rgb_array" in metadata.get("render_modes", ())

    def load_expert(self, env: VectorEnv) -> Policy:
        """The scripted expert for a vector environment of this task. Raises ValueError if there is none."""
        return load_policy(self.check_expert(), env)

    def check_expert(self) -> str:
        """The scripted expert's name. Raises ValueError if there is none."""
        if self.expert is None:
            raise ValueError(f"{self.name} has no scripted expert ({self.no_expert}): name a policy")
        return self.expert


def tasks(family: str | None = None) -> tuple[Task, ...]:
    """All tasks, or those of a family.

    Raises:
        ValueError: for an unknown family.
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    families = FAMILIES if family is None else (family,)
    return tuple(task for name in families for task in import_module(FAMILIES[name]).TASKS)


def task(name: str) -> Task:
    """The task of this name; upper and lower case are the same.

    Raises:
        ValueError: for an unknown one, naming the nearest.
    """
    wanted = name.lower()
    for family in FAMILIES:
        if wanted.startswith(family):
            for found in tasks(family):
                if found.name.lower() == wanted:
                    return found
    names = {known.name.lower(): known.name for known in tasks()}
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    shown = (
        f"did you mean {' or '.join(names[n] for n in near)}?" if near else f"families: {', '.join(FAMILIES)}"
    )
    raise ValueError(f"task {name!r} is not known; {shown}")


def parse_options(task: Task, pairs: Sequence[str]) -> dict[str, Any]:
    """A task's options from ``NAME=VALUE`` texts: numbers, true, false, null and lists as JSON has them, else text.

    Raises:
        ValueError: for a text without ``=``, or an option the task does not have.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"options must be NAME=VALUE, got {pair!r}")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    task.settings(options)
    return options


def task_of(spec: gymnasium.envs.registration.EnvSpec | None) -> tuple[Task, dict[str, Any]] | None:
    """Task and options of recorded data, from the environment's specification in it; None if it is not one of ours."""
    if spec is None or spec.namespace != "rate":
        return None
    for known in tasks():
        if known.env_id == spec.id:
            return known, {name: value for name, value in spec.kwargs.items() if name in known.options}
    return None


def make(name: str, render_mode: str | None = None, **options: Any) -> gymnasium.Env:
    """One environment of a task.

    Args:
        name: of the task.
        render_mode: of the environment, where it can be drawn; None for no pictures.
        options: over the task's own, see ``task(name).options``.

    Raises:
        ValueError: for an unknown task or option, or an option out of range.
        ImportError: if the task's packages are not installed, saying how to install them.
    """
    found = task(name)
    drawn = {} if render_mode is None else {"render_mode": render_mode}
    return _load(found, found.entry_point)(**found.settings(options), **drawn)


def make_vec(
    name: str,
    num_envs: int,
    *,
    processes: bool = False,
    autoreset_mode: AutoresetMode | Literal["NextStep", "Disabled"] = AutoresetMode.NEXT_STEP,
    **options: Any,
) -> VectorEnv:
    """``num_envs`` environments of a task, stepped together.

    Args:
        name: of the task.
        num_envs: at least 1.
        processes: one process for each environment instead of one after the other in this process; worth it where
            a step takes milliseconds. Without effect on a task with a vectorised form of its own.
        autoreset_mode: ``NEXT_STEP``, as :func:`rate.evaluation.evaluate` expects, or ``DISABLED``.
        options: as for :func:`make`.

    Raises:
        ValueError: as :func:`make`, and for a number of environments below 1.
        ImportError: as :func:`make`.
    """
    found = task(name)
    settings = found.settings(options)
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    mode = AutoresetMode(autoreset_mode)
    if found.vector_entry_point is not None:
        return _load(found, found.vector_entry_point)(num_envs, autoreset_mode=mode, **settings)
    one = _load(found, found.entry_point)
    copies = [lambda: one(**settings)] * num_envs
    if processes:
        return AsyncVectorEnv(copies, autoreset_mode=mode)
    return SyncVectorEnv(copies, autoreset_mode=mode)


def _load(found: Task, entry_point: str) -> Callable[..., Any]:
    """The callable that ``entry_point`` names, once the packages it needs are there."""
    for package in found.packages:
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"{found.name} needs {error.name}: pip install 'rate-kernels[{found.extra}]'"
            ) from None
    module, _, name = entry_point.partition(":")
    return getattr(import_module(module), name)
