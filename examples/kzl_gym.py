"""Trains Decision Transformers on T-Maze as kzl/decision-transformer's gym code does, without and with memory.

    python examples/kzl_gym.py

An agent sees a hint at the first step, walks a corridor and must turn the way the hint said. Actions are continuous
there, so a move is a direction: (1, 0) is on, (0, 1) up, (0, -1) down. Both models attend to five steps at a time.
One line differs from that code base, the import; and memory is two arguments.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import gymnasium
import numpy as np
import torch
import tyro

import rate.envs
from rate.compat.kzl import DecisionTransformer  # was: decision_transformer.models.decision_transformer
from rate.data import tmaze_episodes

MOVES = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
MAX_EP_LEN, SCALE, SPAN, BATCH = 100, 1.0, 5, 32


class Directions(gymnasium.ActionWrapper):
    """T-Maze moved by directions ``[2]``: each moves along the axis that it is closest to."""

    def action(self, action: np.ndarray) -> int:
        """The move closest to a direction."""
        return int((MOVES @ action).argmax())


def load_trajectories(episodes: int, corridors: tuple[int, ...], seed: int) -> list[dict[str, np.ndarray]]:
    """An expert's episodes as the dictionaries that the code base keeps in its files."""
    return [
        {"observations": e.observations, "actions": MOVES[e.actions], "rewards": e.rewards}
        for e in tmaze_episodes(episodes, corridors, seed)
    ]


def get_batch(
    trajectories: list[dict[str, np.ndarray]], state_mean: np.ndarray, state_std: np.ndarray, max_len: int
) -> tuple[torch.Tensor, ...]:
    """Windows of ``max_len`` steps, padded at the front; the mask is float64, as there.

    They start anywhere that leaves a whole window. The original starts them at any step; with memory, windows from
    an episode's start on teach more, since only they see what later steps need.
    """
    lengths = np.array([len(path["rewards"]) for path in trajectories])
    chosen = np.random.choice(len(trajectories), size=BATCH, p=lengths / lengths.sum())
    s, a, r, rtg, timesteps, mask = [], [], [], [], [], []
    for path in (trajectories[i] for i in chosen):
        start = random.randint(0, max(0, len(path["rewards"]) - max_len))
        window = slice(start, start + max_len)
        states, rewards = path["observations"][window], path["rewards"][window]
        steps, pad = len(states), max_len - len(states)
        s.append((np.concatenate([np.zeros((pad, 4)), states]) - state_mean) / state_std)
        a.append(np.concatenate([np.full((pad, 2), -10.0), path["actions"][window]]))
        r.append(np.concatenate([np.zeros(pad), rewards])[:, None])
        to_go = path["rewards"][start:][::-1].cumsum()[::-1][:steps] / SCALE
        rtg.append(np.concatenate([np.zeros(pad), to_go])[:, None])
        timesteps.append(np.concatenate([np.zeros(pad), np.arange(start, start + steps)]))
        mask.append(np.concatenate([np.zeros(pad), np.ones(steps)]))
    floats = [torch.from_numpy(np.stack(part)).to(torch.float32) for part in (s, a, r, rtg)]
    return *floats, torch.from_numpy(np.stack(timesteps)).to(torch.int64), torch.from_numpy(np.stack(mask))


def train(
    model: DecisionTransformer, updates: int, next_batch: Callable[[], tuple[torch.Tensor, ...]]
) -> list[float]:
    """The loss of every update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda steps: min((steps + 1) / 50, 1))
    model.train()
    losses = []
    for _ in range(updates):
        states, actions, rewards, rtg, timesteps, attention_mask = next_batch()
        action_target = torch.clone(actions)
        _, action_preds, _ = model.forward(
            states, actions, rewards, rtg, timesteps, attention_mask=attention_mask
        )
        real = attention_mask.reshape(-1) > 0
        action_preds = action_preds.reshape(-1, model.act_dim)[real]
        loss = torch.mean((action_preds - action_target.reshape(-1, model.act_dim)[real]) ** 2)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        scheduler.step()
        losses.append(loss.detach().cpu().item())
    return losses


@torch.no_grad()
def evaluate_episode_rtg(
    env: gymnasium.Env,
    model: DecisionTransformer,
    target_return: float,
    state_mean: np.ndarray,
    state_std: np.ndarray,
    seed: int,
    goal: int,
) -> bool:
    """Acts in one episode, with the whole history given to ``get_action`` at every step, as there."""
    model.eval()
    state, _ = env.reset(seed=seed, options={"goal": goal})
    mean, std = torch.from_numpy(state_mean), torch.from_numpy(state_std)
    states = torch.from_numpy(state).reshape(1, model.state_dim)
    actions, rewards = torch.zeros((0, model.act_dim)), torch.zeros(0)
    to_go = torch.tensor(target_return / SCALE).reshape(1, 1)
    timesteps = torch.zeros((1, 1), dtype=torch.int64)
    for t in range(MAX_EP_LEN):
        actions = torch.cat([actions, torch.zeros((1, model.act_dim))])
        rewards = torch.cat([rewards, torch.zeros(1)])
        action = model.get_action((states - mean) / std, actions, rewards, to_go, timesteps)
        actions[-1] = action
        state, reward, terminated, truncated, info = env.step(action.numpy())
        states = torch.cat([states, torch.from_numpy(state).reshape(1, model.state_dim)])
        rewards[-1] = reward
        to_go = torch.cat([to_go, (to_go[0, -1] - reward / SCALE).reshape(1, 1)], dim=1)
        timesteps = torch.cat([timesteps, torch.full((1, 1), t + 1)], dim=1)
        if terminated or truncated:
            break
    return bool(info["success"])


def main(
    updates: int = 200,
    episodes: int = 300,
    corridors: tuple[int, ...] = (4, 9, 14),
    trials: int = 20,
    seed: int = 0,
) -> None:
    """Trains both models and prints how often each turns the right way, by corridor length.

    Args:
        updates: training updates of each model.
        episodes: the expert's episodes to train on.
        corridors: lengths of corridor; one of L cells takes L + 1 steps.
        trials: episodes to try per corridor length.
        seed: of data and models.
    """
    trajectories = load_trajectories(episodes, corridors, seed)
    states = np.concatenate([path["observations"] for path in trajectories])
    state_mean, state_std = states.mean(0), states.std(0) + np.float32(1e-6)
    # Without memory the model sees its window; with memory, windows of three segments train it.
    longest = max(corridors) + 1
    settings = {
        f"no memory, {SPAN} steps": {"max_length": SPAN},
        f"2 memory tokens, segments of {SPAN} steps": {
            "max_length": longest,
            "memory_tokens": 2,
            "segment_length": SPAN,
        },
    }
    for name, setting in settings.items():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        model = DecisionTransformer(
            state_dim=4,
            act_dim=2,
            hidden_size=32,
            max_ep_len=MAX_EP_LEN,
            n_layer=2,
            n_head=4,
            activation_function="relu",
            resid_pdrop=0.0,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            initializer_range=0.2,  # of so narrow a model; GPT-2's 0.02 is for wide ones
            **setting,
        )
        next_batch = partial(get_batch, trajectories, state_mean, state_std, setting["max_length"])
        losses = train(model, updates, next_batch)
        print(f"{name}: loss {np.mean(losses[:10]):.4f} to {np.mean(losses[-10:]):.4f}")
        for corridor in corridors:
            env = Directions(gymnasium.make(rate.envs.TMAZE_ID, corridor_length=corridor))
            found = [
                evaluate_episode_rtg(env, model, 1.0, state_mean, state_std, trial, (-1, 1)[trial % 2])
                for trial in range(trials)
            ]
            print(f"  corridor of {corridor}: success {np.mean(found):.2f} of {trials}")


if __name__ == "__main__":
    tyro.cli(main)
