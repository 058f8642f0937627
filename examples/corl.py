"""Trains Decision Transformers on T-Maze as CORL's ``dt.py`` does, without and with memory.

    python examples/corl.py

An agent sees a hint at the first step, walks a corridor and must turn the way the hint said. Actions are continuous
there, so the agent steers by one number: at the corridor's end above 0 is up and below 0 down, and before it there is
no choice. Both models attend to five steps at a time. The class is imported instead of defined in the script; nothing
else differs, and memory is one argument.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
import tyro
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

import rate.envs
from rate.compat.corl import DecisionTransformer  # was: a class of this script
from rate.data import tmaze_episodes

RIGHT, UP, LEFT, DOWN = range(4)
STEERING = np.array([0, 1, 0, -1], np.float32)  # of these four moves
EPISODE_LEN, SPAN, BATCH = 100, 5, 32


class Steering(gymnasium.Wrapper):
    """T-Maze steered by one number ``[1]``, with normalised states."""

    def __init__(self, env: gymnasium.Env, state_mean: np.ndarray, state_std: np.ndarray) -> None:
        super().__init__(env)
        self.state_mean, self.state_std = state_mean, state_std

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """As the environment's."""
        observation, info = self.env.reset(**options)
        return self.normalize(observation), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Right along the corridor, and at its end the way that ``action`` points."""
        turn = UP if action[0] > 0 else DOWN
        observation, *rest = self.env.step(turn if self.at_end else RIGHT)
        return self.normalize(observation), *rest

    def normalize(self, observation: np.ndarray) -> np.ndarray:
        """The state that the model knows."""
        self.at_end = observation[2] == 1
        return (observation - self.state_mean) / self.state_std


class SequenceDataset(IterableDataset):
    """Windows of ``seq_len`` steps, padded at the end: states, actions, returns-to-go, time steps and mask.

    They start anywhere that leaves a whole window. The original starts them at any step; with memory, windows from
    an episode's start on teach more, since only they see what later steps need.
    """

    def __init__(self, trajectories: list[dict[str, np.ndarray]], seq_len: int) -> None:
        self.trajectories, self.seq_len = trajectories, seq_len
        lengths = np.array([len(trajectory["actions"]) for trajectory in trajectories])
        self.sample_prob = lengths / lengths.sum()
        observations = np.concatenate([trajectory["observations"] for trajectory in trajectories])
        self.state_mean, self.state_std = observations.mean(0), observations.std(0) + np.float32(1e-6)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        while True:
            trajectory = self.trajectories[np.random.choice(len(self.trajectories), p=self.sample_prob)]
            start = random.randint(0, max(0, len(trajectory["actions"]) - self.seq_len))
            window = slice(start, start + self.seq_len)
            states = (trajectory["observations"][window] - self.state_mean) / self.state_std
            steps, pad = len(states), self.seq_len - len(states)
            yield (
                np.pad(states, ((0, pad), (0, 0))),
                np.pad(trajectory["actions"][window], ((0, pad), (0, 0))),
                np.pad(trajectory["returns"][window], (0, pad)),
                np.arange(start, start + self.seq_len),
                np.hstack([np.ones(steps), np.zeros(pad)]),
            )


def load_trajectories(episodes: int, corridors: tuple[int, ...], seed: int) -> list[dict[str, np.ndarray]]:
    """An expert's episodes, with returns-to-go and with what steers them for actions."""
    return [
        {
            "observations": e.observations,
            "actions": STEERING[e.actions][:, None],
            "returns": e.rewards[::-1].cumsum()[::-1].copy(),
        }
        for e in tmaze_episodes(episodes, corridors, seed)
    ]


def train(model: DecisionTransformer, dataset: SequenceDataset, updates: int) -> list[float]:
    """The loss of every update."""
    batches = iter(DataLoader(dataset, batch_size=BATCH))
    optim = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-4, betas=(0.9, 0.999))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optim, lambda steps: min((steps + 1) / 50, 1))
    model.train()
    losses = []
    for _ in range(updates):
        states, actions, returns, time_steps, mask = next(batches)
        padding_mask = ~mask.to(torch.bool)  # True is ignored
        predicted_actions = model(
            states=states,
            actions=actions,
            returns_to_go=returns,
            time_steps=time_steps,
            padding_mask=padding_mask,
        )
        loss = F.mse_loss(predicted_actions, actions.detach(), reduction="none")
        loss = (loss * mask.unsqueeze(-1)).mean()
        optim.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optim.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def eval_rollout(
    model: DecisionTransformer, env: gymnasium.Env, target_return: float, seed: int, goal: int
) -> bool:
    """Acts in one episode, the last ``seq_len`` steps given to the model at every step, as there."""
    states = torch.zeros(1, model.episode_len + 1, model.state_dim)
    actions = torch.zeros(1, model.episode_len, model.action_dim)
    returns = torch.zeros(1, model.episode_len + 1)
    time_steps = torch.arange(model.episode_len).view(1, -1)
    state, _ = env.reset(seed=seed, options={"goal": goal})
    states[:, 0] = torch.as_tensor(state)
    returns[:, 0] = target_return
    for step in range(model.episode_len):
        predicted_actions = model(
            states[:, : step + 1][:, -model.seq_len :],
            actions[:, : step + 1][:, -model.seq_len :],
            returns[:, : step + 1][:, -model.seq_len :],
            time_steps[:, : step + 1][:, -model.seq_len :],
        )
        predicted_action = predicted_actions[0, -1].cpu().numpy()
        state, reward, terminated, truncated, info = env.step(predicted_action)
        actions[:, step] = torch.as_tensor(predicted_action)
        states[:, step + 1] = torch.as_tensor(state)
        returns[:, step + 1] = returns[:, step] - reward
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
    # Without memory the model sees its window; with memory, windows of three segments train it.
    settings = {
        f"no memory, {SPAN} steps": {"seq_len": SPAN},
        f"2 memory tokens, segments of {SPAN} steps": {"seq_len": 3 * SPAN, "memory_tokens": 2},
    }
    for name, setting in settings.items():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        model = DecisionTransformer(
            state_dim=4,
            action_dim=1,
            episode_len=EPISODE_LEN,
            embedding_dim=32,
            num_layers=2,
            num_heads=4,
            **setting,
        )
        dataset = SequenceDataset(trajectories, setting["seq_len"])
        losses = train(model, dataset, updates)
        print(f"{name}: loss {np.mean(losses[:10]):.4f} to {np.mean(losses[-10:]):.4f}")
        model.eval()
        for corridor in corridors:
            maze = gymnasium.make(rate.envs.TMAZE_ID, corridor_length=corridor)
            env = Steering(maze, dataset.state_mean, dataset.state_std)
            found = [eval_rollout(model, env, 1.0, trial, (-1, 1)[trial % 2]) for trial in range(trials)]
            print(f"  corridor of {corridor}: success {np.mean(found):.2f} of {trials}")


if __name__ == "__main__":
    tyro.cli(main)
