"""Trains Atari Decision Transformers as kzl/decision-transformer does, without and with memory, on T-Maze in pictures.

    python examples/kzl_atari.py

An agent sees a hint in its first frame, walks a corridor and must turn the way the hint said. Both models attend to two
steps at a time, and the turn comes five steps after the hint. One line differs from that code base, the import; and
memory is two settings.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
import tyro
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rate.compat.kzl_atari import GPT, GPTConfig, sample  # was: mingpt.model_atari and mingpt.utils
from rate.envs import TMaze

CORRIDOR, SEGMENT = 5, 2
STEPS = CORRIDOR + 1
MOVES = 4
"""Right, up, left, down."""


def picture(observation: Tensor) -> Tensor:
    """T-Maze's observation ``[4]`` as four stacked frames ``[4, 84, 84]``, brightness from 0 to 1."""
    _, hint, flag, _ = observation.tolist()
    frame = torch.zeros(84, 84)
    frame[:42] += float(hint > 0)  # the hint lights the upper or the lower half,
    frame[42:] += float(hint < 0)
    frame[:, 42:] += flag  # the end of the corridor the right one
    return frame.expand(4, 84, 84)


def expert_episode(goal: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frames ``[T, 4, 84, 84]``, actions ``[T]`` and returns-to-go ``[T]`` of an agent that knows the way."""
    env = TMaze(CORRIDOR, noise=False)
    observation, _ = env.reset(options={"goal": goal})
    frames, actions, rewards = [], [], []
    while sum(rewards) == 0:
        action = 0 if len(actions) < CORRIDOR else 2 - goal
        frames.append(picture(torch.from_numpy(observation)))
        actions.append(action)
        observation, reward, *_ = env.step(action)
        rewards.append(reward)
    to_go = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
    return torch.stack(frames), torch.tensor(actions), to_go


class StateActionReturnDataset(Dataset):
    """All windows of ``block_size // 3`` steps, in the original's shapes and dtypes."""

    def __init__(self, episodes: list[tuple[Tensor, Tensor, Tensor]], block_size: int) -> None:
        steps = block_size // 3
        self.windows = []
        for states, actions, rtgs in episodes:
            for start in range(len(actions) - steps + 1):
                window = slice(start, start + steps)
                x = states[window].reshape(steps, -1).to(torch.float32)
                y = actions[window, None].to(torch.int64)
                r = rtgs[window, None].to(torch.float32)
                self.windows.append((x, y, r, torch.tensor([[start]], dtype=torch.int64)))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.windows[index]


def train(model: GPT, data: Dataset, updates: int) -> list[float]:
    """The loss of every update; the data set is small enough to be one batch."""
    settings = SimpleNamespace(learning_rate=3e-4, betas=(0.9, 0.95), weight_decay=0.1, grad_norm_clip=1.0)
    optimizer = model.configure_optimizers(settings)
    losses = []
    model.train()
    loader = DataLoader(data, shuffle=True, batch_size=len(data))
    while len(losses) < updates:
        for x, y, r, t in loader:
            _, loss = model(x, y, y, r, t)
            model.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_norm_clip)
            optimizer.step()
            losses.append(loss.item())
    return losses


def get_returns(model: GPT, goal: int, target_return: int, max_timestep: int) -> float:
    """Acts in one episode, as the original's trainer evaluates, but for taking the likeliest action."""
    env = TMaze(CORRIDOR, noise=False)
    observation, _ = env.reset(options={"goal": goal})
    all_states = picture(torch.from_numpy(observation)).unsqueeze(0).unsqueeze(0)
    rtgs, actions, reward_sum, j, done = [target_return], [], 0.0, 0, False
    # The first step has no actions before it; so the model knows that an episode begins.
    sampled_action = sample(
        model,
        all_states,
        1,
        temperature=1.0,
        sample=False,
        actions=None,
        rtgs=torch.tensor(rtgs, dtype=torch.long).unsqueeze(0).unsqueeze(-1),
        timesteps=torch.zeros((1, 1, 1), dtype=torch.int64),
    )
    while not done:
        action = sampled_action.cpu().numpy()[0, -1]
        actions += [sampled_action]
        observation, reward, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
        reward_sum += reward
        j += 1
        if done:
            break
        state = picture(torch.from_numpy(observation)).unsqueeze(0).unsqueeze(0)
        all_states = torch.cat([all_states, state], dim=0)
        rtgs += [rtgs[-1] - reward]
        sampled_action = sample(
            model,
            all_states.unsqueeze(0),
            1,
            temperature=1.0,
            sample=False,
            actions=torch.tensor(actions, dtype=torch.long).unsqueeze(1).unsqueeze(0),
            rtgs=torch.tensor(rtgs, dtype=torch.long).unsqueeze(0).unsqueeze(-1),
            timesteps=min(j, max_timestep) * torch.ones((1, 1, 1), dtype=torch.int64),
        )
    return reward_sum


def main(updates: int = 120, trials: int = 20, seed: int = 0) -> None:
    """Trains both models and prints how often each turns the right way.

    Args:
        updates: training updates of each model.
        trials: episodes to try.
        seed: of the models.
    """
    episodes = [expert_episode(goal) for goal in (1, -1)]
    # Without memory the window is what the model attends to; with memory, windows of three segments train it.
    settings = {
        f"no memory, {SEGMENT} steps": {"block_size": 3 * SEGMENT},
        f"2 memory tokens, segments of {SEGMENT} steps": {
            "block_size": 3 * STEPS,
            "memory_tokens": 2,
            "segment_length": SEGMENT,
        },
    }
    for name, setting in settings.items():
        torch.manual_seed(seed)
        config = GPTConfig(
            MOVES,
            **setting,
            n_layer=1,
            n_head=4,
            n_embd=128,
            model_type="reward_conditioned",
            max_timestep=STEPS,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            attn_pdrop=0.0,
        )
        model = GPT(config)
        losses = train(model, StateActionReturnDataset(episodes, config.block_size), updates)
        print(f"{name}: loss {sum(losses[:10]) / 10:.4f} to {sum(losses[-10:]) / 10:.4f}")
        returns = [get_returns(model, (1, -1)[trial % 2], 1, config.max_timestep) for trial in range(trials)]
        print(f"  success {sum(returns) / trials:.2f} of {trials}")


if __name__ == "__main__":
    tyro.cli(main)
