"""Decision Transformer as in github.com/corl-team/CORL (``algorithms/offline/dt.py``), with RATE's memory.

::

    from rate.compat.corl import DecisionTransformer    # in place of the class in dt.py

Three conventions differ from the other code bases': windows are padded at the end, the mask says what to ignore, and
returns-to-go have no last dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rate.compat.drop_in import DropIn, check_shape, check_timesteps, is_exporting
from rate.compat.state_dicts import Original, transformer_names
from rate.compat.transformer import Transformer
from rate.layers import Dropout

_PARTS = {
    "attention_norm.": "norm1.",
    "attention.qkv.": "attention.in_proj_",  # a parameter there, not a layer
    "attention.output.": "attention.out_proj.",
    "feed_forward_norm.": "norm2.",
    "feed_forward.into.": "mlp.0.",
    "feed_forward.out.": "mlp.2.",
}


class DecisionTransformer(DropIn):
    """Predicts actions from returns-to-go, states and earlier actions.

    Without memory tokens it is the original. With them, a window is read in segments that start at the time steps
    that are multiples of ``segment_length``, and memory joins them.

    Acting carries memory by itself, since ``eval_rollout`` calls the model once per step with the last ``seq_len``
    steps. In evaluation mode, without gradients, a call with one row, without ``padding_mask`` and without ``memory``
    is taken for acting: it *continues* the call before if its ``time_steps`` end one step later, it holds at least two
    steps, and what both calls hold is the same, the action not known then aside. Then predictions are those of one
    forward pass over the episode since it began. A call that does not continue begins anew with what it is given; so
    does the first after :meth:`reset`, ``train()``, ``eval()`` and ``load_state_dict()``.

    Args:
        state_dim: Ds, numbers in a state.
        action_dim: Da, numbers in an action.
        seq_len: steps of a window.
        episode_len: steps of the longest episode; the table of time steps has ``episode_len + seq_len`` rows.
        embedding_dim: d, width of the transformer.
        num_layers, num_heads: of the transformer.
        attention_dropout, residual_dropout, embedding_dropout: dropout on attention weights, on what each part adds,
            on embeddings.
        max_action: predicted actions are from ``-max_action`` to ``max_action``.
        memory_tokens: m, memory tokens between segments; 0 is the original. At least two steps per window with them.
        segment_length: steps per segment; by default a third of ``seq_len``, rounded up.
        gate_heads: heads of the memory retention gate; 0 hands memory over as written.

    Raises:
        ValueError: for a setting that does not fit.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        seq_len: int = 10,
        episode_len: int = 1000,
        embedding_dim: int = 128,
        num_layers: int = 4,
        num_heads: int = 8,
        attention_dropout: float = 0.0,
        residual_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        max_action: float = 1.0,
        *,
        memory_tokens: int = 0,
        segment_length: int | None = None,
        gate_heads: int = 1,
    ) -> None:
        super().__init__()
        if memory_tokens and seq_len < 2:
            raise ValueError(
                f"seq_len must be at least 2 with memory_tokens, got {seq_len}: a window of one step does not show "
                "the action before it"
            )
        self.state_dim, self.action_dim = state_dim, action_dim
        self.seq_len, self.episode_len = seq_len, episode_len
        self.embedding_dim, self.max_action = embedding_dim, max_action
        self._add_memory(embedding_dim, seq_len, memory_tokens, segment_length, gate_heads)
        self.emb_drop = Dropout(embedding_dropout)
        self.emb_norm = nn.LayerNorm(embedding_dim)
        self.timestep_emb = nn.Embedding(episode_len + seq_len, embedding_dim)
        self.state_emb = nn.Linear(state_dim, embedding_dim)
        self.action_emb = nn.Linear(action_dim, embedding_dim)
        self.return_emb = nn.Linear(1, embedding_dim)
        self.transformer = Transformer(
            embedding_dim,
            num_layers,
            num_heads,
            4 * embedding_dim,
            "gelu",
            attention_dropout,
            residual_dropout,
        )
        self.action_head = nn.Sequential(nn.Linear(embedding_dim, action_dim), nn.Tanh())
        self._initialise()

    def _initialise(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding) and not name.startswith("memory."):
                if name.endswith(".qkv"):  # as torch.nn.MultiheadAttention begins
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        states: Tensor,
        actions: Tensor,
        returns_to_go: Tensor,
        time_steps: Tensor,
        padding_mask: Tensor | None = None,
        *,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Reads windows of K steps.

        Args:
            states: ``[B, K, Ds]``; numbers of any dtype are taken in the parameters' own.
            actions: ``[B, K, Da]``; the action of a step is predicted without it.
            returns_to_go: ``[B, K]``.
            time_steps: int64 ``[B, K]``, steps of the episode; the real ones of a row are successive.
            padding_mask: bool ``[B, K]``, **True for padding**, on either side. None means that all are real.
            memory: ``[B, m, d]`` from ``last_memory``, for windows that go on where an earlier call's ended. Rows
                whose first real time step is 0 do not take it.

        Returns:
            Predicted actions ``[B, K, Da]``, which mean something for real steps only.

        Raises:
            ValueError, TypeError: an argument does not fit; the message names it.
        """
        self._check(states, actions, returns_to_go, time_steps, padding_mask)
        dtype = self.state_emb.weight.dtype
        steps = (returns_to_go.to(dtype), states.to(dtype), actions.to(dtype))
        acts = not (self.training or torch.is_grad_enabled() or is_exporting())
        if acts and self.memory.memory_tokens and len(states) == 1 and padding_mask is memory is None:
            return self.acting(self._read_steps, steps, time_steps)
        return self._predict(steps, time_steps, None if padding_mask is None else ~padding_mask, memory)

    def _predict(
        self, steps: tuple[Tensor, ...], time_steps: Tensor, real: Tensor | None, memory: Tensor | None
    ) -> Tensor:
        returns_to_go, states, actions = steps
        time = self.timestep_emb(time_steps)
        tokens = torch.stack(
            [
                self.return_emb(returns_to_go[..., None]) + time,
                self.state_emb(states) + time,
                self.action_emb(actions) + time,
            ],
            dim=2,
        )
        tokens = self.emb_drop(self.emb_norm(tokens))
        hidden, _ = self._read_window(tokens, self.transformer, time_steps, real, memory)
        return self.action_head(hidden[:, :, 1]) * self.max_action

    def _read_steps(
        self, steps: tuple[Tensor, ...], time_steps: Tensor, memory: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        return self._predict(steps, time_steps, None, memory), self.last_memory

    def _check(
        self,
        states: Tensor,
        actions: Tensor,
        returns_to_go: Tensor,
        time_steps: Tensor,
        padding_mask: Tensor | None,
    ) -> None:
        check_shape("states", states, ("B", "K", self.state_dim))
        batch, steps = states.shape[:2]
        if not steps:
            raise ValueError("states must hold at least one step, got 0")
        check_shape("actions", actions, (batch, steps, self.action_dim))
        check_shape("returns_to_go", returns_to_go, (batch, steps))
        check_shape("time_steps", time_steps, (batch, steps))
        check_timesteps("time_steps", time_steps, self.timestep_emb.num_embeddings)
        if padding_mask is not None:
            check_shape("padding_mask", padding_mask, (batch, steps))
            if padding_mask.dtype != torch.bool:
                raise TypeError(f"padding_mask must be bool, True for padding, got {padding_mask.dtype}")

    def _original_names(self) -> dict[str, Original]:
        layers = len(self.transformer.blocks)
        return super()._original_names() | transformer_names(layers, "blocks.{}.", _PARTS, "out_norm.")

    def _original_extras(self) -> dict[str, Callable[[], Tensor]]:
        """The causal masks."""
        size = 3 * self.seq_len
        mask = lambda: torch.ones(size, size, dtype=torch.bool).triu(1)
        return {f"blocks.{layer}.causal_mask": mask for layer in range(len(self.transformer.blocks))}
