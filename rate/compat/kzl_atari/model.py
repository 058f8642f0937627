"""The Atari Decision Transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rate.compat.drop_in import DropIn, check_shape, check_timesteps
from rate.compat.kzl_atari.acting import Acting
from rate.compat.state_dicts import Original, transformer_names
from rate.compat.transformer import Transformer
from rate.layers import Dropout

FRAMES = (4, 84, 84)
"""A step's states: four stacked frames."""

MODEL_TYPES = ("reward_conditioned", "naive")

_PARTS = {
    "attention_norm.": "ln1.",
    "attention.output.": "attn.proj.",
    "feed_forward_norm.": "ln2.",
    "feed_forward.into.": "mlp.0.",
    "feed_forward.out.": "mlp.2.",
}
"""The parts of a block under the original's names, but for the joined projection."""


class GPT(DropIn):
    """Predicts actions from returns-to-go, stacked frames and earlier actions.

    ``load_state_dict`` takes the original's ``state_dict`` too, and :meth:`original_state_dict` gives it back. The
    memory after a call without ``targets`` is not in ``last_memory``: the last action is not known then.

    Args:
        config: see :class:`rate.compat.kzl_atari.GPTConfig`; one of the original's class does too.

    Raises:
        AttributeError: if ``config`` lacks a setting.
        ValueError: if one does not fit.
    """

    acting: Acting  # type: ignore[assignment]  # an episode's first step is the caller's word here

    def __init__(self, config: Any) -> None:
        super().__init__()
        if config.model_type not in MODEL_TYPES:
            raise ValueError(
                f"config.model_type must be one of {', '.join(MODEL_TYPES)}, got {config.model_type!r}"
            )
        self.config, self.model_type, self.block_size = config, config.model_type, config.block_size
        self.max_timestep = config.max_timestep
        width, window = config.n_embd, config.block_size // 3
        if window < 1:
            raise ValueError(
                f"config.block_size must hold a step's three tokens at least, got {config.block_size}"
            )
        self.tok_emb = nn.Embedding(config.vocab_size, width)  # the original has it, and reads it nowhere
        self.pos_emb = nn.Parameter(torch.zeros(1, config.block_size + 1, width))
        self.global_pos_emb = nn.Parameter(torch.zeros(1, config.max_timestep + 1, width))
        self.drop = Dropout(config.embd_pdrop)
        self.transformer = Transformer(
            width, config.n_layer, config.n_head, 4 * width, "gelu", config.attn_pdrop, config.resid_pdrop
        )
        self.head = nn.Linear(width, config.vocab_size, bias=False)
        self.action_embeddings = nn.Sequential(nn.Embedding(config.vocab_size, width), nn.Tanh())
        self.apply(self._init_weights)
        # What is made from here on begins as PyTorch has it, as in the original.
        self.state_encoder = nn.Sequential(
            nn.Conv2d(4, 32, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(3136, width),
            nn.Tanh(),
        )
        self.ret_emb = nn.Sequential(nn.Linear(1, width), nn.Tanh())
        # The settings may be an object of the original's class, which knows nothing of memory.
        length = getattr(config, "segment_length", None)
        if length is not None and length > window:
            raise ValueError(
                f"config.segment_length must be at most the window's {window} steps, got {length}"
            )
        tokens, gate_heads = getattr(config, "memory_tokens", 0), getattr(config, "gate_heads", 1)
        self._add_memory(width, window, tokens, length, gate_heads)
        self.acting = Acting()

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def get_block_size(self) -> int:
        """Tokens of the longest window."""
        return self.block_size

    def configure_optimizers(self, train_config: Any) -> torch.optim.AdamW:
        """AdamW in two groups: weights of linear maps and convolutions decay, everything else does not.

        Args:
            train_config: has ``learning_rate``, ``betas`` and ``weight_decay``.
        """
        maps = [module for module in self.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        decaying = [module.weight for module in maps]
        known = {id(weight) for weight in decaying}
        others = [parameter for parameter in self.parameters() if id(parameter) not in known]
        groups = [
            {"params": decaying, "weight_decay": train_config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=train_config.learning_rate, betas=train_config.betas)

    def forward(
        self,
        states: Tensor,
        actions: Tensor | None,
        targets: Tensor | None = None,
        rtgs: Tensor | None = None,
        timesteps: Tensor | None = None,
        *,
        memory: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The logits of the actions, and their loss.

        Without memory tokens this is the original: all tokens get the row of the table of timesteps that
        ``timesteps`` names, the window's first step in training and the current one in acting.

        With memory tokens ``timesteps`` says where a window stands: segments start at the episode's multiples of
        ``segment_length``, positions count from a segment's start, and the row is that of the step it starts at. In
        evaluation mode a call without ``targets`` acts: ``actions=None`` starts an episode, each further call gives
        one step more, and ``timesteps`` is the current step.

        Args:
            states: ``[B, K, 4 * 84 * 84]``, or anything of that many numbers per step.
            actions: int ``[B, K, 1]``, or K - 1 of them without ``targets``; None at an episode's first step.
            targets: int ``[B, K, 1]``, for the loss.
            rtgs: ``[B, K, 1]`` of any dtype; a naive model does not read them.
            timesteps: int64 ``[B, 1, 1]``, from 0 to ``max_timestep``.
            memory: ``[B, m, d]``, ``last_memory`` of the windows that these go on from. A row that starts an
                episode does not take it.

        Returns:
            Logits ``[B, K, vocab_size]`` (in acting with memory those of the newest step, ``[B, 1, vocab_size]``),
            and the mean cross-entropy, None without ``targets``.

        Raises:
            ValueError: for an argument that does not fit.
            RuntimeError: for a call in acting that does not go on from the one before.
        """
        timesteps = self._check(states, actions, targets, rtgs, timesteps)
        steps, with_memory = states.shape[1], self.memory.memory_tokens > 0
        if with_memory and targets is None and not self.training:
            hidden = self.acting(self, states, actions, rtgs, timesteps)
            self.last_memory = None
            return self.head(hidden[:, None, self.state_token]), None
        if actions is None and with_memory:
            actions = timesteps.new_zeros(len(states), 0, 1)
        elif actions is not None and targets is None:
            actions = actions[:, actions.shape[1] - steps + 1 :]
        tokens = self.embed(states, actions, rtgs)
        step = timesteps + torch.arange(steps, device=timesteps.device)
        if with_memory:
            tokens = tokens + self.segment_position(step)
        else:
            local = self.pos_emb[:, : tokens[0, ..., 0].numel()].unflatten(1, tokens.shape[1:3])
            tokens = tokens + (self.global_pos_emb[0, timesteps][:, :, None] + local)
        hidden, _ = self._read_window(self.drop(tokens), self.transformer, step, None, memory)
        logits = self.head(hidden[:, :, self.state_token])
        if targets is None:
            self.last_memory = None
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @property
    def state_token(self) -> int:
        """Where the state stands among a step's tokens."""
        return int(self.model_type == "reward_conditioned")

    def embed(self, states: Tensor, actions: Tensor | None, rtgs: Tensor | None) -> Tensor:
        """``[B, K, P, d]`` without positions: zeros for a last action that is not there, no place where none is."""
        batch, steps = states.shape[:2]
        dtype = self.head.weight.dtype
        parts = [self.state_encoder(states.reshape(-1, *FRAMES).to(dtype)).unflatten(0, (batch, steps))]
        if self.model_type == "reward_conditioned":
            assert rtgs is not None
            parts.insert(0, self.ret_emb(rtgs.to(dtype)))
        if actions is not None:
            taken = self.action_embeddings(actions[..., 0].long())
            parts.append(F.pad(taken, (0, 0, 0, steps - taken.shape[1])))
        return torch.stack(parts, dim=2)

    def segment_position(self, step: Tensor) -> Tensor:
        """What the tokens of steps ``[B, K]`` of an episode get when read in segments: ``[B, K, P, d]``."""
        length, per_step = self.memory.segment_length, self.state_token + 2
        inside = step % length
        local = self.pos_emb[0, : length * per_step].unflatten(0, (length, per_step))[inside]
        return local + self.global_pos_emb[0, (step - inside).clamp(max=self.max_timestep)][:, :, None]

    def _check(
        self,
        states: Tensor,
        actions: Tensor | None,
        targets: Tensor | None,
        rtgs: Tensor | None,
        timesteps: Tensor | None,
    ) -> Tensor:
        """Raises ValueError for what does not fit; gives ``timesteps`` as int64 ``[B, 1]``."""
        numbers = FRAMES[0] * FRAMES[1] * FRAMES[2]
        if states.dim() < 3 or 0 in states.shape[:2] or states[0, 0].numel() != numbers:
            raise ValueError(f"states must be [B, K, {numbers}], got {list(states.shape)}")
        batch, steps = states.shape[:2]
        with_memory, per_step = self.memory.memory_tokens > 0, self.state_token + 2
        if not with_memory and steps * per_step > self.block_size + 1:
            raise ValueError(
                f"states must fit into block_size = {self.block_size} tokens, got {steps} steps of {per_step}"
            )
        if actions is None and (targets is not None or (with_memory and steps > 1)):
            raise ValueError(
                f"actions must be given for {steps} steps: None is for acting on an episode's first"
            )
        if actions is not None:
            counts = (steps,) if targets is not None else (steps, steps - 1)
            fits = actions.dim() == 3 and actions.shape[::2] == (batch, 1)
            if not fits or actions.shape[1] not in counts:
                raise ValueError(f"actions must be {[batch, counts[-1], 1]}, got {list(actions.shape)}")
        if rtgs is None and self.model_type == "reward_conditioned":
            raise ValueError("rtgs must be given to a reward-conditioned model, got None")
        for name, tensor in (("targets", targets), ("rtgs", rtgs)):
            if tensor is not None:
                check_shape(name, tensor, (batch, steps, 1))
        if timesteps is None:
            raise ValueError(f"timesteps must be {[batch, 1, 1]}, got None")
        check_shape("timesteps", timesteps, (batch, 1, 1))
        check_timesteps("timesteps", timesteps, self.max_timestep + 1)
        return timesteps[:, :, 0].long()

    def _original_names(self) -> dict[str, Original]:
        layers = range(len(self.transformer.blocks))
        names = transformer_names(len(layers), "blocks.{}.", _PARTS, "ln_f.")
        for kind in ("weight", "bias"):
            for i in layers:
                joined = tuple(f"blocks.{i}.attn.{part}.{kind}" for part in ("query", "key", "value"))
                names[f"transformer.blocks.{i}.attention.qkv.{kind}"] = Original(joined)
        return super()._original_names() | names

    def _original_extras(self) -> dict[str, Callable[[], Tensor]]:
        side = self.block_size + 1
        masks = (f"blocks.{i}.attn.mask" for i in range(len(self.transformer.blocks)))
        return {name: lambda: torch.ones(1, 1, side, side).tril() for name in masks}
