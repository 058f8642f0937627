"""Training and validation as the published RATE code does them, on T-Maze, with one import changed.

    python examples/published_rate.py
    python examples/published_rate.py --through-memory    one change of the loop more: see below

The published loop cuts memory from the graph at every segment, so that nothing teaches the model what to remember;
``--through-memory`` leaves it whole, sums the losses of an episode's segments and makes one step of the optimiser.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from rate.compat.upstream import RATE  # was: from RATE.RATE_model import RATE
from rate.data import tmaze_episodes
from rate.envs import TMazeVector

PADDING = -10


@dataclass
class Options:
    """Train on corridors of up to three segments, then walk some."""

    batches: int = 1000
    """Batches of episodes; each is a step of the optimiser per segment."""
    batch_size: int = 32
    """Episodes in a batch."""
    context_length: int = 5
    """Steps of a segment."""
    sections: int = 3
    """Segments of an episode."""
    through_memory: bool = False
    """Let the loss of a segment teach the segments before what to remember."""
    seed: int = 0
    """Of parameters and data."""


def batches(options: Options) -> Iterator[tuple[Tensor, ...]]:
    """Endless batches in the published layout: states, actions (padded with -10), returns-to-go, timesteps."""
    steps = options.context_length * options.sections
    corridors = range(1, steps - 1)
    episodes = tmaze_episodes(512, corridors, options.seed)
    rng = np.random.default_rng(options.seed)
    while True:
        states = torch.zeros(options.batch_size, steps, 4)
        actions = torch.full((options.batch_size, steps, 1), float(PADDING))
        returns = torch.zeros(options.batch_size, steps, 1)
        for row, number in enumerate(rng.integers(len(episodes), size=options.batch_size)):
            episode = episodes[int(number)]
            length = len(episode.actions)
            states[row, :length] = torch.from_numpy(episode.observations)
            states[row, length:] = states[row, length - 1].clone()
            actions[row, :length, 0] = torch.from_numpy(episode.actions)
            returns[row, :length, 0] = torch.from_numpy(episode.returns_to_go)
        yield states, actions, returns, torch.arange(steps).expand(options.batch_size, -1)


def train(model: RATE, options: Options) -> list[float]:
    """The published loop, segment by segment; returns the mean loss of every batch."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    means = []
    for (states, actions, returns, timesteps), _ in zip(
        batches(options), range(options.batches), strict=False
    ):
        memory = mem_tokens = None
        losses = []
        for segment in range(options.sections):
            part = slice(segment * options.context_length, (segment + 1) * options.context_length)
            x, y, r, t = states[:, part], actions[:, part], returns[:, part], timesteps[:, part]
            if mem_tokens is None:
                mem_tokens = model.mem_tokens.repeat(1, len(x), 1)
            elif not options.through_memory:
                mem_tokens = mem_tokens.detach()
            out = model(x, y, r, y, t, *(memory or []), mem_tokens=mem_tokens)
            memory, mem_tokens = out["new_mems"], out["mem_tokens"]
            if (y == PADDING).all():
                break
            logits = out["logits"].flatten(0, 1)
            losses.append(F.cross_entropy(logits, y.flatten().long(), ignore_index=PADDING))
            if not options.through_memory:
                optimise(model, optimizer, losses[-1])
        if options.through_memory:
            optimise(model, optimizer, torch.stack(losses).mean())
        means.append(torch.stack(losses).mean().item())
    return means


def optimise(model: RATE, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step."""
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def validate(model: RATE, corridor: int, context_length: int, episodes: int = 50) -> float:
    """Success: the running segment is read again at every step; memory moves on when it is full."""
    model.eval()
    env = TMazeVector(episodes, corridor_length=corridor, balanced_goals=True)
    observation, _ = env.reset(seed=1000)
    states, actions = [torch.from_numpy(observation)], []
    memory: list[Tensor] = []
    mem_tokens = model.mem_tokens.repeat(1, episodes, 1)
    reached = np.zeros(episodes)
    done = np.zeros(episodes, dtype=bool)
    for step in range(corridor + 2):
        if step and step % context_length == 0:
            states, actions = states[-1:], []
            mem_tokens, memory = out["mem_tokens"], out["new_mems"] or []  # noqa: F821 - of the step before
        out = model(
            torch.stack(states, 1),
            torch.stack(actions, 1) if actions else None,
            torch.ones(episodes, len(states), 1),  # the return asked for; T-Maze pays at the end only
            None,
            None,
            *memory,
            mem_tokens=mem_tokens,
        )
        action = out["logits"][:, -1].argmax(-1)
        observation, reward, terminated, truncated, _ = env.step(action.numpy())
        reached += reward * ~done
        done |= terminated | truncated
        if done.all():
            break
        states.append(torch.from_numpy(observation))
        actions.append(action[:, None])
    return float(reached.mean())


def main() -> None:
    """Trains, walks corridors of one, two and three segments, and prints what came of it."""
    options = tyro.cli(Options)
    torch.manual_seed(options.seed)
    model = RATE(
        state_dim=4,
        act_dim=4,
        n_layer=2,
        n_head=2,
        n_head_ca=1,
        d_model=32,
        d_head=16,
        d_inner=32,
        dropout=0.0,
        dropatt=0.0,
        mem_len=0,
        ext_len=0,
        num_mem_tokens=5,
        env_name="tmaze",
        skip_dec_ffn=True,
        padding_idx=PADDING,
    )
    torch.nn.init.xavier_uniform_(model.r_w_bias)
    torch.nn.init.xavier_uniform_(model.r_r_bias)
    losses = train(model, options)
    tenth = max(1, len(losses) // 10)
    print(f"loss {np.mean(losses[:tenth]):.3f} at first, {np.mean(losses[-tenth:]):.3f} at last")
    for segments in range(1, options.sections + 1):
        corridor = segments * options.context_length - 2
        success = validate(model, corridor, options.context_length)
        print(f"corridor {corridor:3d} ({segments} segments): success {success:.2f}")


if __name__ == "__main__":
    main()
