"""Random models and random episodes: an engine beside the reference in float64, environments out of step."""

from __future__ import annotations

import dataclasses
import random

import torch

from rate_kernels.recurrence import RecurrenceShape, TokenInput
from rate_kernels.recurrence.engine.reference import ReferenceEngine


def random_shape(seed: int) -> RecurrenceShape:
    """A small model of any kind, its sizes rarely multiples of anything."""
    rng = random.Random(seed)
    block = rng.choice(["pre_norm", "pre_norm", "published", "published_gated"])
    gated = block == "published_gated" or (block == "pre_norm" and rng.random() < 0.4)
    d_model, num_memory = rng.choice([8, 12, 20, 32, 64]), rng.choice([0, 1, 3, 5, 9])
    gate_heads = rng.choice([0] + [heads for heads in (1, 2, 4) if d_model % heads == 0]) if num_memory else 0
    observation = rng.choice(["vector", "discrete", "embedded"])
    return RecurrenceShape(
        d_model=d_model,
        num_layers=rng.choice([1, 2]),
        num_heads=rng.choice([1, 2, 4]),
        d_head=rng.choice([4, 8, 16, 20, 32, 72]),
        d_inner=rng.choice([16, 40] if gated else [0, 16, 40, 100]),
        num_memory=num_memory,
        segment_tokens=rng.choice([3, 9, 30]),
        cache_len=rng.choice([0, 0, 5, 13, 40, 70]),
        read_cache=rng.random() < 0.5,
        gate_heads=gate_heads,
        gate_activation=rng.choice(["relu", "leaky_relu", "tanh", "none"]),
        block=block,
        gated=gated,
        observation=observation,
        observation_size={"vector": 5, "discrete": 7, "embedded": 0}[observation],
        normalized=observation == "vector" and rng.random() < 0.5,
        action=rng.choice(["discrete", "continuous"]),
        action_size=rng.choice([1, 3, 4]),
        action_tanh=rng.random() < 0.5,
        action_scale=2.0,
        return_scale=3.0,
    )


def random_parameters(
    shape: RecurrenceShape, seed: int, weights: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """Float32 numbers that ``weights`` can hold."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, size in shape.parameter_shapes().items():
        x = torch.randn(size, generator=generator)
        if name.endswith("norm_weight"):
            x = 1 + 0.2 * x
        elif name == "observation_std":
            x = x.abs() + 0.5
        elif len(size) == 2 and name != "memory":
            x *= 1.2 * size[1] ** -0.5
        found[name] = x.to(weights).float()
    return found


def random_tokens(shape: RecurrenceShape, batch: int, generator: torch.Generator) -> TokenInput:
    if shape.observation == "discrete":
        observations = torch.randint(shape.observation_size, (batch,), generator=generator)
    else:
        size = shape.observation_size or shape.d_model
        observations = torch.randn(batch, size, generator=generator)
    if shape.action == "discrete":
        actions = torch.randint(shape.action_size + 1, (batch,), generator=generator)
    else:
        actions = torch.randn(batch, shape.action_size, generator=generator)
    return TokenInput(torch.randn(batch, generator=generator), observations, actions)


def moved(
    tokens: TokenInput, device: torch.device, embedded: torch.dtype, shape: RecurrenceShape
) -> TokenInput:
    """On ``device``; rows that are embedded already in the dtype ``embedded``."""
    fields = {
        field.name: None if (x := getattr(tokens, field.name)) is None else x.to(device)
        for field in dataclasses.fields(tokens)
    }
    for name in ["embedded", *(["observations"] if shape.observation == "embedded" else [])]:
        fields[name] = None if fields[name] is None else fields[name].to(embedded)
    return TokenInput(**fields)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of the whole tensor, by norm."""
    found, expected = found.cpu().double(), expected.double()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-6))


def worst_error(  # type: ignore[no-untyped-def]
    engine, shape: RecurrenceShape, parameters, batch: int, steps: int, seed: int, disturbance: float = 1.0
) -> float:
    """Drives ``engine`` beside the reference: steps of 0 to 3 tokens, segments ended early and late, resets.

    Args:
        disturbance: scales how often segments end early and environments are reset.

    Returns:
        the largest relative error of hidden states, predictions, memory and cache. Counters must be equal.
    """
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    reference = ReferenceEngine(shape, {name: x.double() for name, x in parameters.items()}, batch)
    device, errors = engine.state.memory.device, [0.0]

    def both(name, *arguments, tokens=None):  # type: ignore[no-untyped-def]
        given = [(), ()] if tokens is None else [
            (moved(tokens, torch.device("cpu"), torch.float64, shape),),
            (moved(tokens, device, torch.float32, shape),),
        ]  # fmt: skip
        return [
            getattr(e, name)(*arguments, *more) for e, more in zip((reference, engine), given, strict=True)
        ]

    def some(numbers):  # type: ignore[no-untyped-def]
        room = shape.segment_tokens - reference.state.tokens
        return torch.minimum(torch.tensor([rng.choice(numbers) for _ in range(batch)]), room)

    both("reset", torch.ones(batch, dtype=torch.bool))
    for _ in range(steps):
        full = reference.state.tokens > shape.segment_tokens - 3
        ends = torch.tensor(
            [rng.random() < (0.5 if is_full else 0.08 * disturbance) for is_full in full.tolist()]
        )
        if ends.any():
            count = torch.where(ends, some([0, 1, 2, 3]), 0)
            both("end_segment", ends, count, tokens=random_tokens(shape, batch, generator))
        if rng.random() < 0.1 * disturbance:
            both("reset", torch.tensor([rng.random() < 0.3 for _ in range(batch)]))
        tokens = random_tokens(shape, batch, generator)
        if rng.random() < 0.2:
            tokens = TokenInput(embedded=torch.randn(batch, 3, shape.d_model, generator=generator))
        expected, found = both("step", some([0, 1, 2, 2, 3]), tokens=tokens)
        errors += [relative_error(ours, theirs) for ours, theirs in zip(found, expected, strict=True)]
        for name in ("tokens", "cached"):
            assert getattr(engine.state, name).tolist() == getattr(reference.state, name).tolist()
        errors.append(relative_error(engine.state.memory, reference.state.memory))
        for ours, theirs in zip(engine.state.hidden, reference.state.hidden, strict=True):
            for env, cached in enumerate(reference.state.cached.tolist()):
                rows = slice(shape.cache_len - cached, shape.cache_len)
                errors.append(relative_error(ours[env, rows], theirs[env, rows]))
    return max(errors)
