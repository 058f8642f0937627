"""RATE as published: sequence-first Transformer-XL with memory tokens, its cost structure left as it is."""

from typing import Any

import torch
from torch import Tensor, nn

from bench.baselines.published_attention import PublishedAttention, published_mask
from bench.baselines.published_layers import PublishedLayer, PublishedMemoryGate


class SinusoidTable(nn.Module):
    """[sin, cos] of every distance, made anew at each call."""

    inv_freq: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 10000.0 ** -(torch.arange(0.0, d_model, 2.0) / d_model))

    def forward(self, distances: Tensor) -> Tensor:
        """distances: [keys]; returns [keys, 1, d_model]."""
        angles = torch.outer(distances, self.inv_freq)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, None, :]


class PublishedRATE(nn.Module):
    """The published model. Keyword arguments are the published constructor's, `host_copies` is ours.

    env_name: "tmaze" (discrete actions, cross-entropy) or "mujoco" (continuous actions, tanh head).
    host_copies: False leaves out, in every layer, the attention's copy to the host and the wait to look at
        the mask there.
    """

    def __init__(
        self,
        state_dim: int,
        act_dim: int,
        n_layer: int,
        n_head: int,
        n_head_ca: int,
        d_model: int,
        d_head: int,
        d_inner: int,
        dropout: float,
        dropatt: float,
        pre_lnorm: bool = False,
        ext_len: int = 0,
        mem_len: int = 0,
        num_mem_tokens: int = 0,
        read_mem_from_cache: bool = False,
        mem_at_end: bool = True,
        max_ep_len: int = 1000,
        env_name: str = "mujoco",
        use_gate: bool = False,
        use_stable_version: bool = False,
        mrv_act: str = "relu",
        skip_dec_ffn: bool = False,
        padding_idx: int | None = None,
        host_copies: bool = True,
    ) -> None:
        super().__init__()
        if len({use_gate, use_stable_version, pre_lnorm}) > 1:
            raise ValueError("use_gate, use_stable_version and pre_lnorm are supported all on or all off")
        if ext_len != 0:
            raise ValueError(f"ext_len must be 0, got {ext_len}")
        self.act_dim, self.d_model, self.padding_idx = act_dim, d_model, padding_idx
        self.mem_len, self.num_mem_tokens = mem_len, num_mem_tokens
        self.mem_at_end = mem_at_end and num_mem_tokens > 0
        self.read_mem_from_cache = read_mem_from_cache
        self.discrete = env_name != "mujoco"

        self.state_encoder = nn.Linear(state_dim, d_model)
        self.ret_emb = nn.Linear(1, d_model)
        self.action_embeddings: nn.Module
        self.head: nn.Module
        if self.discrete:
            self.action_embeddings = nn.Sequential(nn.Embedding(act_dim + 1, d_model), nn.Tanh())
            self.head = nn.Linear(d_model, act_dim, bias=False)
        else:
            self.action_embeddings = nn.Linear(act_dim, d_model)
            self.head = nn.Sequential(nn.Linear(d_model, act_dim), nn.Tanh())
        # These two have published parameters and no effect.
        self.embed_timestep = nn.Embedding(max_ep_len, d_model)
        self.embed_ln = nn.LayerNorm(d_model)

        self.drop = nn.Dropout(dropout)
        self.pos_emb = SinusoidTable(d_model)
        self.r_w_bias = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_head, d_head)))
        self.r_r_bias = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_head, d_head)))
        self.layers = nn.ModuleList(
            PublishedLayer(
                PublishedAttention(n_head, d_model, d_head, dropout, dropatt, pre_lnorm, host_copies),
                d_model,
                d_inner,
                dropout,
                gated=use_gate,
                feed_forward=not skip_dec_ffn,
            )
            for _ in range(n_layer)
        )
        if num_mem_tokens > 0:
            self.mem_tokens = nn.Parameter(torch.randn(1, 1, d_model).repeat(num_mem_tokens, 1, 1))
            if n_head_ca > 0:
                self.mha_mem_to_mem = PublishedMemoryGate(d_model, n_head_ca, dropatt, mrv_act)
        self.gated_memory = num_mem_tokens > 0 and n_head_ca > 0

    def initial_memory(self, batch_size: int) -> Tensor | None:
        """Memory before the first segment, [m, batch_size, d]; None for a model without memory tokens."""
        return self.mem_tokens.repeat(1, batch_size, 1) if self.num_mem_tokens > 0 else None

    def _embed_actions(self, actions: Tensor) -> Tensor:
        """actions: [B, k, 1] or [B, k, act_dim]; returns [B, k, d]."""
        if self.discrete:
            actions = actions[..., 0].long()
            if self.padding_idx is not None:
                actions = torch.where(actions == self.padding_idx, self.act_dim, actions)
        embedded: Tensor = self.action_embeddings(actions)
        return embedded

    def _tokens(self, states: Tensor, actions: Tensor | None, rtgs: Tensor, known_actions: int) -> Tensor:
        """Interleave to [B, 2K + known_actions, d]: return, state, action of each step in turn."""
        batch, steps = states.shape[:2]
        state: Tensor = self.state_encoder(states)
        stride = 2 if actions is None else 3
        tokens = state.new_zeros(batch, 2 * steps + known_actions, self.d_model)
        tokens[:, ::stride] = self.ret_emb(rtgs)
        tokens[:, 1::stride] = state
        if actions is not None and known_actions > 0:
            tokens[:, 2::stride] = self._embed_actions(actions[:, actions.shape[1] - known_actions :])
        return tokens

    def _updated_cache(self, hidden: list[Tensor], mems: tuple[Tensor, ...]) -> list[Tensor]:
        """The last mem_len rows of old cache and new hidden states together, memory rows included."""
        if self.mem_len == 0:
            return []
        with torch.no_grad():
            rows = (
                [torch.cat([old, new], dim=0) for old, new in zip(mems, hidden, strict=True)]
                if mems
                else hidden
            )
            return [row[-self.mem_len :].detach() for row in rows]

    def forward(
        self,
        states: Tensor,
        actions: Tensor | None,
        rtgs: Tensor,
        target: Tensor | None,
        timesteps: Tensor | None,
        *mems: Tensor,
        mem_tokens: Tensor | None = None,
    ) -> dict[str, Any]:
        """One segment of K steps.

        states: [B, K, state_dim]; rtgs: [B, K, 1]; actions: [B, k, 1] or [B, k, act_dim], None at first.
        target: only whether it is None counts. If it is, the last action is not known yet and the last K - 1
        actions given are read, otherwise the last K. timesteps: no effect, as published.
        mems: none, or n_layer + 1 tensors [c, B, d]; mem_tokens: [m, B, d], required with memory tokens.
        Returns logits [B, K, act_dim] read at the state tokens, new_mems, mem_tokens [m, B, d] or None.
        """
        if (mem_tokens is None) != (self.num_mem_tokens == 0):
            raise ValueError(
                f"model has {self.num_mem_tokens} memory tokens; mem_tokens is {type(mem_tokens).__name__}"
            )
        steps = states.shape[1]
        known_actions = 0 if actions is None else steps - int(target is None)
        stride = 2 if actions is None else 3
        x = self._tokens(states, actions, rtgs, known_actions).permute(1, 0, 2)
        if mem_tokens is not None:
            x = torch.cat([mem_tokens, x, mem_tokens] if self.mem_at_end else [mem_tokens, x], dim=0)

        cache_len = mems[0].shape[0] if mems else 0
        mask = published_mask(
            x.shape[0], cache_len, self.num_mem_tokens, self.mem_at_end, self.read_mem_from_cache, x.device
        )[:, :, None]
        distances = torch.arange(cache_len + x.shape[0] - 1, -1, -1.0, device=x.device, dtype=x.dtype)
        r = self.drop(self.pos_emb(distances))
        x = self.drop(x)
        hidden = [x]
        for index, layer in enumerate(self.layers):
            x = layer(x, r, self.r_w_bias, self.r_r_bias, mask, mems[index] if mems else None)
            hidden.append(x)
        new_mems = self._updated_cache(hidden, mems)
        x = self.drop(x)

        new_memory = None
        if mem_tokens is not None:
            m = self.num_mem_tokens
            if self.mem_at_end:
                new_memory, x = x[-m:], x[m:-m]
            else:
                new_memory, x = x[:m], x[m:]
            if self.gated_memory:
                updated = self.mha_mem_to_mem(mem_tokens.transpose(0, 1), new_memory.transpose(0, 1))
                new_memory = updated.transpose(0, 1)
        # The head runs on every token; two thirds of its output are dropped.
        logits = self.head(x.permute(1, 0, 2))[:, 1::stride]
        return {"logits": logits, "new_mems": new_mems, "mem_tokens": new_memory}
