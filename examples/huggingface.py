"""Trains Decision Transformers on T-Maze as code for Hugging Face transformers does, without and with memory.

    python examples/huggingface.py

An agent sees a hint at the first step, walks a corridor and must turn the way the hint said. Actions are continuous
there, so a move is one of four unit vectors, and the agent makes the move whose number is largest. Both models attend
to five steps at a time. One line differs from that code, the import; and memory is two settings.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from torch import Tensor
from transformers.utils import logging

# was: from transformers import DecisionTransformerConfig, DecisionTransformerModel
from rate.compat.huggingface import RateConfig as DecisionTransformerConfig
from rate.compat.huggingface import RateModel as DecisionTransformerModel
from rate.data import tmaze_episodes
from rate.envs import TMaze

MOVES, SPAN, BATCH, MAX_EP_LEN = 4, 5, 32, 100


class TrainableDT(DecisionTransformerModel):
    """The model with its loss, as a trainer wants it."""

    def forward(self, **kwargs: Tensor) -> dict[str, Tensor]:
        output = super().forward(**kwargs)
        real = kwargs["attention_mask"].reshape(-1) > 0
        action_preds = output.action_preds.reshape(-1, MOVES)[real]
        action_targets = kwargs["actions"].reshape(-1, MOVES)[real]
        return {"loss": torch.mean((action_preds - action_targets) ** 2)}


@dataclass
class DataCollator:
    """Windows of ``max_len`` steps, padded at the front, from an expert's episodes."""

    episodes: list[dict[str, np.ndarray]]
    max_len: int
    state_mean: np.ndarray
    state_std: np.ndarray
    rng: np.random.Generator

    def __call__(self, batch_size: int) -> dict[str, Tensor]:
        lengths = np.array([len(episode["rewards"]) for episode in self.episodes])
        rows = []
        for index in self.rng.choice(len(self.episodes), batch_size, p=lengths / lengths.sum()):
            episode = self.episodes[index]
            start = int(self.rng.integers(max(1, lengths[index] - self.max_len + 1)))
            window = slice(start, start + self.max_len)
            states = (episode["observations"][window] - self.state_mean) / self.state_std
            to_go = episode["rewards"][start:][::-1].cumsum()[::-1][: len(states)]
            rows.append(
                {
                    "states": self._pad(states),
                    "actions": self._pad(np.eye(MOVES)[episode["actions"][window]], -10.0),
                    "rewards": self._pad(episode["rewards"][window, None]),
                    "returns_to_go": self._pad(to_go[:, None]),
                    "timesteps": self._pad(np.arange(start, start + len(states))),
                    "attention_mask": self._pad(np.ones(len(states))),
                }
            )
        batch = {
            name: torch.from_numpy(np.stack([row[name] for row in rows])).float()
            for name in ("states", "actions", "rewards", "returns_to_go", "attention_mask")
        }
        return batch | {"timesteps": torch.from_numpy(np.stack([row["timesteps"] for row in rows])).long()}

    def _pad(self, values: np.ndarray, value: float = 0.0) -> np.ndarray:
        padded = np.full((self.max_len, *values.shape[1:]), value)
        padded[self.max_len - len(values) :] = values
        return padded


def train(model: TrainableDT, collator: DataCollator, updates: int) -> list[float]:
    """The loss of every update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 50, 1))
    model.train()
    losses = []
    for _ in range(updates):
        loss = model(**collator(BATCH))["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def succeeds(model: DecisionTransformerModel, collator: DataCollator, corridor: int, seed: int) -> bool:
    """Acts in one episode with the whole history given at every step."""
    env = TMaze(corridor)
    observation, _ = env.reset(seed=seed, options={"goal": (-1, 1)[seed % 2]})
    states, actions, rewards = torch.zeros(0, 4), torch.zeros(0, MOVES), torch.zeros(0)
    target_return, timesteps = torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.long)
    for t in range(MAX_EP_LEN):
        state = torch.from_numpy((observation - collator.state_mean) / collator.state_std).float()
        states = torch.cat([states, state.reshape(1, 4)])
        actions = torch.cat([actions, torch.zeros(1, MOVES)])
        rewards = torch.cat([rewards, torch.zeros(1)])
        # Code for transformers has a function get_action(model, ...) that cuts and pads; RateModel brings its own.
        action = model.get_action(states, actions, rewards, target_return, timesteps)
        actions[-1] = action
        observation, reward, terminated, truncated, info = env.step(int(action.argmax()))
        rewards[-1] = float(reward)
        if terminated or truncated:
            break
        target_return = torch.cat([target_return, target_return[:, -1:] - float(reward)], dim=1)
        timesteps = torch.cat([timesteps, torch.full((1, 1), t + 1)], dim=1)
    return bool(info["success"])


def main(
    updates: int = 300,
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
    logging.disable_progress_bar()
    data = [
        {"observations": e.observations, "actions": e.actions, "rewards": e.rewards}
        for e in tmaze_episodes(episodes, corridors, seed)
    ]
    states = np.concatenate([episode["observations"] for episode in data])
    statistics = states.mean(0), states.std(0) + 1e-6
    # Without memory the window is what the model attends to; with memory, windows of three segments train it.
    settings = {
        f"no memory, {SPAN} steps": {"max_length": SPAN},
        f"2 memory tokens, segments of {SPAN} steps": {
            "max_length": max(corridors) + 1,
            "memory_tokens": 2,
            "segment_length": SPAN,
        },
    }
    for name, setting in settings.items():
        torch.manual_seed(seed)
        config = DecisionTransformerConfig(
            state_dim=4,
            act_dim=MOVES,
            hidden_size=32,
            n_layer=2,
            n_head=4,
            max_ep_len=MAX_EP_LEN,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            initializer_range=0.2,  # of so narrow a model; the default 0.02 is for wide ones
            **setting,
        )
        collator = DataCollator(data, setting["max_length"], *statistics, np.random.default_rng(seed))
        losses = train(model := TrainableDT(config), collator, updates)
        print(f"{name}: loss {np.mean(losses[:10]):.4f} to {np.mean(losses[-10:]):.4f}")
        with tempfile.TemporaryDirectory() as folder:  # or push_to_hub: a model like any other
            model.save_pretrained(folder)
            model = DecisionTransformerModel.from_pretrained(folder)
        for corridor in corridors:
            found = [succeeds(model, collator, corridor, trial) for trial in range(trials)]
            print(f"  corridor of {corridor}: success {np.mean(found):.2f} of {trials}")


if __name__ == "__main__":
    tyro.cli(main)
