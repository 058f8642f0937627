"""Decision Transformer as in github.com/kzl/decision-transformer (gym), with RATE's memory.

::

    - from decision_transformer.models.decision_transformer import DecisionTransformer
    + from rate.compat.kzl import DecisionTransformer

The transformer is GPT-2's without its positions: an embedding of the episode's timestep is added to the three tokens
of each step instead. The rest is as there, the names and defaults of arguments included.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rate.compat.drop_in import DropIn, check_shape, check_timesteps
from rate.compat.state_dicts import GPT2_PARTS, Original, transformer_names
from rate.compat.transformer import Transformer
from rate.layers import Dropout


class TrajectoryModel(nn.Module):
    """What the models of that code base have in common; it predicts nothing and acts with zeros.

    Args:
        state_dim: Ds, numbers in a state.
        act_dim: Da, numbers in an action.
        max_length: steps that acting looks back; None for all.
    """

    def __init__(self, state_dim: int, act_dim: int, max_length: int | None = None) -> None:
        super().__init__()
        self.state_dim, self.act_dim, self.max_length = state_dim, act_dim, max_length

    def forward(
        self,
        states: Tensor,
        actions: Tensor,
        rewards: Tensor | None,
        masks: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> tuple[Any, Any, Any]:
        """Predictions of states, actions and rewards: none here."""
        return None, None, None

    def get_action(self, states: Tensor, actions: Tensor, rewards: Tensor | None, **kwargs: Any) -> Tensor:
        """The action to take after ``states``: zeros of an action's shape here."""
        return torch.zeros_like(actions[-1])


class DecisionTransformer(DropIn, TrajectoryModel):
    """Predicts actions from returns-to-go, states and earlier actions.

    Without memory tokens it is the original. With them, a window is read in segments that start at the timesteps
    that are multiples of ``segment_length``, and memory joins them.

    Args:
        state_dim: Ds, numbers in a state.
        act_dim: Da, numbers in an action.
        hidden_size: d, width of the transformer.
        max_length: steps that acting looks back without memory, None for all. With memory acting looks back over the
            whole episode.
        max_ep_len: rows of the timestep table: timesteps are from 0 to ``max_ep_len - 1``.
        action_tanh: whether predicted actions go through tanh.
        n_layer, n_head, n_inner, activation_function, resid_pdrop, embd_pdrop, attn_pdrop, layer_norm_epsilon,
            initializer_range: GPT-2's settings, with GPT-2's defaults.
        n_positions: taken as there, and without effect: there are no positions to run out of.
        n_ctx: size of the mask in the original's state dict; of no other effect.
        memory_tokens: m, memory tokens between segments; 0 is the original.
        segment_length: steps per segment; by default a third of ``max_length``, rounded up.
        gate_heads: heads of the memory retention gate; 0 hands memory over as written.

    Raises:
        ValueError: for a setting that does not fit.
        TypeError: for a setting that is not known.
    """

    def __init__(
        self,
        state_dim: int,
        act_dim: int,
        hidden_size: int,
        max_length: int | None = None,
        max_ep_len: int = 4096,
        action_tanh: bool = True,
        *,
        n_layer: int = 12,
        n_head: int = 12,
        n_inner: int | None = None,
        activation_function: str = "gelu_new",
        n_positions: int = 1024,
        n_ctx: int = 1024,
        resid_pdrop: float = 0.1,
        embd_pdrop: float = 0.1,
        attn_pdrop: float = 0.1,
        layer_norm_epsilon: float = 1e-5,
        initializer_range: float = 0.02,
        memory_tokens: int = 0,
        segment_length: int | None = None,
        gate_heads: int = 1,
    ) -> None:
        super().__init__(state_dim, act_dim, max_length=max_length)
        self.hidden_size, self.max_ep_len, self.n_ctx = hidden_size, max_ep_len, n_ctx
        self._add_memory(hidden_size, max_length, memory_tokens, segment_length, gate_heads)
        self.transformer = Transformer(
            hidden_size,
            n_layer,
            n_head,
            n_inner if n_inner is not None else 4 * hidden_size,
            activation_function,
            attn_pdrop,
            resid_pdrop,
            layer_norm_epsilon,
        )
        for module in self.transformer.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=initializer_range)
                nn.init.zeros_(module.bias)
        self.embed_timestep = nn.Embedding(max_ep_len, hidden_size)
        self.embed_return = nn.Linear(1, hidden_size)
        self.embed_state = nn.Linear(state_dim, hidden_size)
        self.embed_action = nn.Linear(act_dim, hidden_size)
        self.embed_ln = nn.LayerNorm(hidden_size)
        self.embed_dropout = Dropout(embd_pdrop)
        self.predict_state = nn.Linear(hidden_size, state_dim)
        head = nn.Linear(hidden_size, act_dim)
        self.predict_action = nn.Sequential(head, nn.Tanh()) if action_tanh else nn.Sequential(head)
        self.predict_return = nn.Linear(hidden_size, 1)

    def forward(  # type: ignore[override]
        self,
        states: Tensor,
        actions: Tensor,
        rewards: Tensor | None,
        returns_to_go: Tensor,
        timesteps: Tensor,
        attention_mask: Tensor | None = None,
        *,
        memory: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reads windows of K steps.

        Args:
            states: ``[B, K, Ds]``; numbers of any dtype are taken in the parameters' own.
            actions: ``[B, K, Da]``; the action of a step is predicted without it.
            rewards: not read.
            returns_to_go: ``[B, K, 1]``.
            timesteps: int64 ``[B, K]``, steps of the episode; the real ones of a row are successive.
            attention_mask: ``[B, K]`` of any dtype, not 0 for real steps and 0 for padding, on either side. None means
                that all are real.
            memory: ``[B, m, d]`` from ``last_memory``, for windows that go on where an earlier call's ended. Rows
                whose first real timestep is 0 do not take it.

        Returns:
            Predicted states ``[B, K, Ds]``, actions ``[B, K, Da]`` and returns-to-go ``[B, K, 1]``, which mean
            something for real steps only.

        Raises:
            ValueError, TypeError: an argument does not fit; the message names it.
        """
        self._check(states, actions, returns_to_go, timesteps, attention_mask)
        dtype = self.embed_state.weight.dtype
        time = self.embed_timestep(timesteps)
        tokens = torch.stack(
            [
                self.embed_return(returns_to_go.to(dtype)) + time,
                self.embed_state(states.to(dtype)) + time,
                self.embed_action(actions.to(dtype)) + time,
            ],
            dim=2,
        )
        tokens = self.embed_dropout(self.embed_ln(tokens))
        real = None if attention_mask is None else attention_mask != 0
        hidden, _ = self._read_window(tokens, self.transformer, timesteps, real, memory)
        _, from_state, from_action = hidden.unbind(2)
        # The action token has seen its step whole, the state token has yet to choose.
        return (
            self.predict_state(from_action),
            self.predict_action(from_state),
            self.predict_return(from_action),
        )

    def get_action(  # type: ignore[override]
        self,
        states: Tensor,
        actions: Tensor,
        rewards: Tensor | None,
        returns_to_go: Tensor,
        timesteps: Tensor,
        **kwargs: Any,
    ) -> Tensor:
        """The action to take in the newest state of an episode.

        Without memory it is predicted from the last ``max_length`` steps, padded at the front to that many. With
        memory it is predicted from the whole episode: a call that goes on by one step where the last one ended (see
        :class:`rate.compat.acting.Acting`) reads the running segment alone, any other call all it is given.

        Args:
            states: ``[T, Ds]``, the episode so far.
            actions: ``[T, Da]``, the newest not known yet: whatever stands there.
            rewards: not read.
            returns_to_go: ``[T]`` or ``[1, T]``.
            timesteps: int64, ``[T]`` or ``[1, T]``.
            kwargs: for ``forward``.

        Returns:
            ``[Da]``.

        Raises:
            ValueError, TypeError: an argument does not fit; the message names it.
        """
        dtype = self.embed_state.weight.dtype
        states = states.reshape(1, -1, self.state_dim).to(dtype)
        actions = actions.reshape(1, -1, self.act_dim).to(dtype)
        returns_to_go = returns_to_go.reshape(1, -1, 1).to(dtype)
        timesteps = timesteps.reshape(1, -1)
        # Padding would hide that one of them holds more steps than another.
        self._check(states, actions, returns_to_go, timesteps, None)
        if self.memory.memory_tokens:
            read = partial(self._read_steps, kwargs)
            return self.acting(read, (returns_to_go, states, actions), timesteps)[0, -1]
        mask = None
        if self.max_length is not None:
            window = [x[:, -self.max_length :] for x in (states, actions, returns_to_go, timesteps)]
            steps = window[0].shape[1]
            states, actions, returns_to_go, timesteps = (
                _left_pad(x, self.max_length - steps) for x in window
            )
            mask = torch.arange(self.max_length, device=states.device)[None] >= self.max_length - steps
            mask = mask.to(torch.int64)
        predictions = self(states, actions, None, returns_to_go, timesteps, attention_mask=mask, **kwargs)
        return predictions[1][0, -1]

    def _read_steps(
        self, kwargs: dict[str, Any], steps: tuple[Tensor, ...], timesteps: Tensor, memory: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        returns_to_go, states, actions = steps
        predictions = self(states, actions, None, returns_to_go, timesteps, memory=memory, **kwargs)
        return predictions[1], self.last_memory

    def _check(
        self,
        states: Tensor,
        actions: Tensor,
        returns_to_go: Tensor,
        timesteps: Tensor,
        attention_mask: Tensor | None,
    ) -> None:
        check_shape("states", states, ("B", "K", self.state_dim))
        batch, steps = states.shape[:2]
        if not steps:
            raise ValueError("states must hold at least one step, got 0")
        check_shape("actions", actions, (batch, steps, self.act_dim))
        check_shape("returns_to_go", returns_to_go, (batch, steps, 1))
        check_shape("timesteps", timesteps, (batch, steps))
        check_timesteps("timesteps", timesteps, self.max_ep_len)
        if attention_mask is not None:
            check_shape("attention_mask", attention_mask, (batch, steps))

    def _original_names(self) -> dict[str, Original]:
        layers = len(self.transformer.blocks)
        return super()._original_names() | transformer_names(
            layers, "transformer.h.{}.", GPT2_PARTS, "transformer.ln_f.", transposed=True
        )

    def _original_extras(self) -> dict[str, Callable[[], Tensor]]:
        """The causal masks, and the word embedding that nothing reads: zeros."""
        size = (1, 1, self.n_ctx, self.n_ctx)
        extras: dict[str, Callable[[], Tensor]] = {
            "transformer.wte.weight": lambda: torch.zeros(1, self.hidden_size)
        }
        for layer in range(len(self.transformer.blocks)):
            attention = f"transformer.h.{layer}.attn"
            extras[f"{attention}.bias"] = lambda: torch.ones(size, dtype=torch.uint8).tril()
            extras[f"{attention}.masked_bias"] = lambda: torch.tensor(-1e4)
        return extras


def _left_pad(x: Tensor, steps: int) -> Tensor:
    return torch.cat([x.new_zeros(1, steps, *x.shape[2:]), x], dim=1)
