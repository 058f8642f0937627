"""Acting in PyTorch, token by token: the specification. Any device, float32 and float64.

Keys and values of a running segment are made once and stay in their slots. A slot is also the position of what stands
in it, so a new row's score with every slot is ``((q + u) . k_j + q~ . phi_j) / sqrt(d_head)``, the separable form of
the relative position (:mod:`rate_kernels.attention.position`). Environments stand at different places: their rows
carry the slots they go to, -1 where there is no row.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from rate_kernels.attention.position import key_table, sinusoids
from rate_kernels.gate import GateParameters
from rate_kernels.gate.reference import retention_gate
from rate_kernels.recurrence.engine.inputs import TokenInput, check_counts, check_values
from rate_kernels.recurrence.engine.shape import RecurrenceShape
from rate_kernels.recurrence.engine.state import EngineState


class ReferenceEngine:
    """See :class:`rate_kernels.SegmentRecurrence`; arguments are taken as checked."""

    def __init__(self, shape: RecurrenceShape, parameters: Mapping[str, Tensor], batch_size: int) -> None:
        self.shape, self.p = shape, {name: x.detach().clone() for name, x in parameters.items()}
        like = self.p["content_bias"]
        d, slots, heads = shape.d_model, shape.slots, (shape.num_heads, shape.d_head)
        layers = range(shape.num_layers)

        def counter(dtype: torch.dtype) -> Tensor:
            return torch.zeros(batch_size, dtype=dtype, device=like.device)

        self.state = EngineState(
            counter(torch.int64),
            counter(torch.int64),
            counter(torch.bool),
            counter(torch.bool),
            like.new_zeros(batch_size, shape.num_memory, d),
            [like.new_zeros(batch_size, slots, *heads) for _ in layers],
            [like.new_zeros(batch_size, slots, *heads) for _ in layers],
            [like.new_zeros(batch_size, slots, d) for _ in layers] if shape.cache_len else [],
        )
        positions = torch.arange(slots, device=like.device)
        self.sine, self.cosine = sinusoids(positions, d, like.dtype)
        self.phi = key_table(slots, d, like.dtype, like.device)

    # --- The three calls --------------------------------------------------------------------------

    def reset(self, mask: Tensor) -> None:
        """Starts an episode in the environments of ``mask``, bool ``[B]``."""
        state, mask = self.state, mask.to(self.phi.device)
        if self.shape.num_memory:
            state.memory[mask] = self.p["memory"]
        for counter in (state.tokens, state.cached, state.read_done):
            counter[mask] = 0
        state.ready |= mask

    def step(self, count: Tensor, tokens: TokenInput) -> tuple[Tensor, Tensor]:
        """Reads ``count`` (int64 ``[B]``) new tokens: hidden and predictions of the last one, zeros where none."""
        state, shape, count = self.state, self.shape, count.to(self.phi.device)
        check_counts(count, state.ready, state.tokens, shape.segment_tokens)
        check_values(tokens, shape, state.tokens, count)
        unread = (count > 0) & ~state.read_done
        if shape.num_memory and unread.any():
            self._run(state.memory, self._slots(shape.cache_len, shape.num_memory, unread), None)
        state.read_done |= unread
        number = torch.arange(3, device=count.device)
        new = number < count[:, None]
        first = (shape.cache_len + shape.num_memory + state.tokens)[:, None]
        hidden = self._run(
            self._embed(tokens, state.tokens[:, None] + number, new),
            torch.where(new, first + number, -1),
            None,
        )
        state.tokens += count
        last = hidden[torch.arange(len(count), device=count.device), (count - 1).clamp(min=0)]
        last = last * (count > 0)[:, None]
        return last, self._head(last) * (count > 0)[:, None]

    def end_segment(self, mask: Tensor, count: Tensor, tokens: TokenInput) -> None:
        """Reads the last tokens, writes memory and rolls the cache in the environments of ``mask``, bool ``[B]``."""
        state, shape, mask = self.state, self.shape, mask.to(self.phi.device)
        check_counts(mask.long(), state.ready, state.tokens * 0, shape.segment_tokens)
        count = count.to(self.phi.device) * mask
        if count.any():
            self.step(count, tokens)
        if shape.num_memory:
            # A segment that ends without a token still has read memory, which write memory sees.
            unread = mask & ~state.read_done
            if unread.any():
                self._run(state.memory, self._slots(shape.cache_len, shape.num_memory, unread), None)
            for length in state.tokens[mask].unique().tolist():
                self._write(mask & (state.tokens == length), length)
        if shape.cache_len:
            self._roll(mask)
        state.tokens[mask] = 0
        state.read_done[mask] = False

    def _write(self, which: Tensor, length: int) -> None:
        state, m = self.state, self.shape.num_memory
        slots = self._slots(self.shape.cache_len + m + length, m, which)
        update = self._run(state.memory, slots, length)
        if self.shape.gate_heads:
            names = [f"gate_{x}_{y}" for x in ("query", "key", "value", "output") for y in ("weight", "bias")]
            gate = GateParameters(*(self.p[name] for name in names))
            update = retention_gate(
                state.memory, update, gate, self.shape.gate_heads, self.shape.gate_activation
            )
        state.memory[which] = update[which]

    def _roll(self, mask: Tensor) -> None:
        """The last rows of cache and segment together move to the end of the cache."""
        shape, state = self.shape, self.state
        for env in mask.nonzero()[:, 0].tolist():
            rows = 2 * shape.num_memory + int(state.tokens[env])
            end = shape.cache_len + rows
            state.cached[env] = (state.cached[env] + rows).clamp(max=shape.cache_len)
            for layers in (state.keys, state.values, state.hidden):
                for layer in layers:
                    layer[env, : shape.cache_len] = layer[env, end - shape.cache_len : end].clone()
            if shape.block != "published_gated":
                continue
            for index in range(shape.num_layers):  # here a cached row passes one norm, a running row two
                cached = self._norm(state.hidden[index][env, : shape.cache_len], index, "inner_norm")
                _, key, value = self._project(cached, index)
                state.keys[index][env, : shape.cache_len] = key
                state.values[index][env, : shape.cache_len] = value

    # --- Rows through the layers ------------------------------------------------------------------

    def _slots(self, first: int, count: int, which: Tensor) -> Tensor:
        slots = torch.arange(first, first + count, device=which.device)
        return torch.where(which[:, None], slots, -1)

    def _visible(self, slots: Tensor, length: int | None) -> Tensor:
        """Bool ``[B, R, slots]``; ``length``: tokens of a segment whose write memory the rows are, else None."""
        shape = self.shape
        tokens = shape.segment_tokens if length is None else length
        mask = shape.layout(length is not None).mask(tokens, slots.device)
        mask = F.pad(mask, (0, shape.slots - mask.shape[1]))
        visible = mask[(slots - shape.cache_len).clamp(min=0)] & (slots >= 0)[..., None]
        first = shape.cache_len - self.state.cached
        return visible & (torch.arange(shape.slots, device=slots.device) >= first[:, None, None])

    def _run(self, x: Tensor, slots: Tensor, length: int | None) -> Tensor:
        """Rows ``x [B, R, d]`` go to ``slots [B, R]`` in every layer: what the last layer gives."""
        state, visible = self.state, self._visible(slots, length)
        env, row = (slots >= 0).nonzero(as_tuple=True)
        place = (env, slots[env, row])
        for index in range(self.shape.num_layers):
            if state.hidden:
                state.hidden[index][place] = x[env, row]
            entered = self._enter(x, index)
            query, key, value = self._project(entered, index)
            state.keys[index][place], state.values[index][place] = key[env, row], value[env, row]
            attended = self._attend(query, index, slots.clamp(min=0), visible)
            x = self._leave(x, F.linear(attended.flatten(-2), self.p[f"layers.{index}.output"]), index)
        if self.shape.block == "pre_norm":
            d = (self.shape.d_model,)
            x = F.layer_norm(x, d, self.p["final_norm_weight"], self.p["final_norm_bias"])
        return x

    def _project(self, x: Tensor, index: int) -> tuple[Tensor, ...]:
        heads = (3, self.shape.num_heads, self.shape.d_head)
        return F.linear(x, self.p[f"layers.{index}.qkv"]).unflatten(-1, heads).unbind(-3)

    def _attend(self, query: Tensor, index: int, slots: Tensor, visible: Tensor) -> Tensor:
        shape, state = self.shape, self.state
        weight = self.p[f"layers.{index}.position"].unflatten(0, (shape.num_heads, shape.d_head))
        halves = torch.einsum("brhx,hxp->brhp", query + self.p["position_bias"], weight)
        a, b = halves.chunk(2, dim=-1)
        sine, cosine = self.sine[slots][:, :, None], self.cosine[slots][:, :, None]
        rotated = torch.cat([a * sine + b * cosine, b * sine - a * cosine], dim=-1)
        content = torch.einsum("brhx,bshx->bhrs", query + self.p["content_bias"], state.keys[index])
        scores = content + torch.einsum("brhp,sp->bhrs", rotated, self.phi)
        hidden = ~visible[:, None]
        scores = (scores * shape.d_head**-0.5).masked_fill(hidden, -torch.inf)
        weights = scores.softmax(-1).masked_fill(hidden, 0.0)  # a row that is not there sees nothing
        return torch.einsum("bhrs,bshx->brhx", weights, state.values[index])

    # --- The three kinds of block -----------------------------------------------------------------

    def _enter(self, x: Tensor, index: int) -> Tensor:
        """What attention's projections read."""
        if self.shape.block == "published":
            return x
        normed = self._norm(x, index, "attention_norm")
        return normed if self.shape.block == "pre_norm" else self._norm(normed, index, "inner_norm")

    def _leave(self, x: Tensor, y: Tensor, index: int) -> Tensor:
        """The layer's output from its input ``x`` and attention's answer ``y``."""
        if self.shape.block == "published":
            x = self._norm(2 * x + y, index, "attention_norm")
            if self.shape.d_inner:
                x = self._norm(x + self._feed_forward(x, index), index, "feed_forward_norm")
            return x
        if self.shape.block == "published_gated":
            y = self._norm(x, index, "attention_norm") + y
        x = self._unit(x, F.relu(y), index, "attention") if self.shape.gated else x + y
        if self.shape.d_inner:
            y = self._feed_forward(self._norm(x, index, "feed_forward_norm"), index)
            x = self._unit(x, F.relu(y), index, "feed_forward") if self.shape.gated else x + y
        return x

    def _norm(self, x: Tensor, index: int, name: str) -> Tensor:
        prefix = f"layers.{index}.{name}"
        return F.layer_norm(x, (self.shape.d_model,), self.p[f"{prefix}_weight"], self.p[f"{prefix}_bias"])

    def _feed_forward(self, x: Tensor, index: int) -> Tensor:
        p = {
            name: self.p[f"layers.{index}.feed_forward_{name}"]
            for name in ("in", "in_bias", "out", "out_bias")
        }
        return F.linear(F.relu(F.linear(x, p["in"], p["in_bias"])), p["out"], p["out_bias"])

    def _unit(self, stream: Tensor, update: Tensor, index: int, name: str) -> Tensor:
        prefix = f"layers.{index}.{name}"
        w_r, w_z, w_g = F.linear(update, self.p[f"{prefix}_from_update"]).chunk(3, dim=-1)
        u_r, u_z = F.linear(stream, self.p[f"{prefix}_from_stream"]).chunk(2, dim=-1)
        reset = torch.sigmoid(w_r + u_r)
        mix = torch.sigmoid(w_z + u_z - self.p[f"{prefix}_gate_bias"])
        candidate = torch.tanh(w_g + F.linear(reset * stream, self.p[f"{prefix}_from_reset"]))
        return torch.lerp(stream, candidate, mix)

    # --- Tokens in, predictions out ---------------------------------------------------------------

    def _embed(self, tokens: TokenInput, number: Tensor, new: Tensor) -> Tensor:
        """Rows ``[B, 3, d]`` of the tokens ``number [B, 3]``: by number % 3 a return, an observation, an action."""
        if tokens.embedded is not None:
            return torch.where(new[..., None], tokens.embedded, 0)
        rows = self.p["content_bias"].new_zeros(*number.shape, self.shape.d_model)
        kinds = number % 3
        encoders = (self._embed_returns, self._embed_observations, self._embed_actions)
        for kind, encode in enumerate(encoders):
            env, row = (new & (kinds == kind)).nonzero(as_tuple=True)
            if len(env):
                rows[env, row] = encode(tokens, env)
        return rows

    def _embed_returns(self, tokens: TokenInput, env: Tensor) -> Tensor:
        assert tokens.returns is not None
        returns = tokens.returns[env, None].to(self.phi.dtype) / self.shape.return_scale
        return F.linear(returns, self.p["return_weight"], self.p["return_bias"])

    def _embed_observations(self, tokens: TokenInput, env: Tensor) -> Tensor:
        assert tokens.observations is not None
        observed = tokens.observations[env]
        if self.shape.observation == "discrete":
            return F.embedding(observed, self.p["observation_weight"])
        observed = observed.to(self.phi.dtype)
        if self.shape.observation == "embedded":
            return observed
        if self.shape.normalized:
            observed = (observed - self.p["observation_mean"]) / self.p["observation_std"]
        return F.linear(observed, self.p["observation_weight"], self.p["observation_bias"])

    def _embed_actions(self, tokens: TokenInput, env: Tensor) -> Tensor:
        assert tokens.actions is not None
        acted = tokens.actions[env]
        if self.shape.action == "discrete":
            encoded = F.embedding(acted, self.p["action_weight"])
        else:
            acted = acted.to(self.phi.dtype) / self.shape.action_scale
            encoded = F.linear(acted, self.p["action_weight"], self.p["action_bias"])
        return encoded.tanh() if self.shape.action_tanh else encoded

    def _head(self, hidden: Tensor) -> Tensor:
        if self.shape.action == "discrete":
            return F.linear(hidden, self.p["head_weight"])
        out = F.linear(hidden, self.p["head_weight"], self.p["head_bias"])
        return out.tanh() * self.shape.action_scale
