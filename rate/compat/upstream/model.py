"""The published model class on :class:`rate.RATE`: its constructor, its call and its state dict."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rate.compat.upstream import names
from rate.compat.upstream.settings import config_from_upstream, environment_named
from rate.model import RATE as Model
from rate.state import SegmentState
from rate_kernels import roll_cache


class RATE(nn.Module):
    """The published ``RATE``, for the published training and validation code.

    Constructor and call are the published ones, and so are the names in ``state_dict()``: files of either class load
    into the other. What the published model holds without using it (the timestep table, norms) is kept as it came.

    Differences: dropout draws other masks, and leaves out position encodings and the memory gate (where the published
    code keeps it on in evaluation too). No attention scores are formed, so ``attn_map`` is None. Any precision will do.

    Args:
        state_dim, act_dim: sizes of a state and an action, or numbers of them.
        n_layer, n_head, d_model, d_head, d_inner: the transformer; ``skip_dec_ffn`` leaves out its feed-forward part.
        n_head_ca: heads of the memory retention gate; 0 hands memory over as written.
        dropout, dropatt: on activations, and on attention weights.
        mem_len: hidden states of earlier segments that each layer sees, in tokens.
        num_mem_tokens: memory tokens.
        read_mem_from_cache: whether memory tokens see the cache.
        mrv_act: activation before the gate: relu, leaky_relu, tanh or no_act.
        use_gate, use_stable_version, pre_lnorm: all three for GTrXL's layers, none for the plain ones.
        env_name: chooses encoders and head; see ``rate.compat.upstream.settings.ENVIRONMENTS``.
        padding_idx: an action that stands for padding.
        max_ep_len: rows of the unused timestep table.
        others: as published; those with an effect that is not reproduced are refused.

    Attributes:
        rate: the :class:`rate.RATE` within, with the parameters; to act or save with.
        mem_tokens: ``[num_mem_tokens, 1, d_model]``, the learned memory; None without memory tokens.
        r_w_bias, r_r_bias: ``[n_head, d_head]``, the attention's content and position bias.

    Raises:
        ValueError: for a setting that is not reproduced, naming it.
    """

    attn_map = None

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
        tgt_len: int | None = None,
        ext_len: int | None = None,
        mem_len: int | None = None,
        num_mem_tokens: int | None = None,
        read_mem_from_cache: bool = False,
        mem_at_end: bool = True,
        same_length: bool = False,
        clamp_len: int = -1,
        sample_softmax: int = -1,
        max_ep_len: int = 1000,
        env_name: str = "mujoco",
        use_gate: bool = False,
        use_stable_version: bool = False,
        mrv_act: str = "relu",
        skip_dec_ffn: bool = False,
        padding_idx: int | None = None,
        **kwargs: Any,
    ) -> None:
        arguments = {
            key: value for key, value in locals().items() if key not in ("self", "kwargs", "__class__")
        }
        super().__init__()
        config = config_from_upstream(arguments)
        self.env_name, self.padding_idx, self.act_dim = env_name, padding_idx, act_dim
        self.n_layer, self.n_head, self.n_head_ca = n_layer, n_head, n_head_ca
        self.d_model, self.d_head = d_model, d_head
        self.mem_len, self.num_mem_tokens = config.cache_len, config.num_memory
        self.mem_at_end = config.num_memory > 0
        self.rate = Model(config)
        self.unused = names.Unused(config, max_ep_len, n_head_ca)
        with torch.no_grad():
            if self.rate.memory is not None:  # published memory starts with all rows alike
                self.rate.memory.copy_(self.rate.memory[:1].expand_as(self.rate.memory))
            if not environment_named(env_name).no_action_row:
                self.rate.action_encoder.embedding.weight[-1].zero_()  # type: ignore[union-attr, index]
        self.register_state_dict_post_hook(_publish)
        self.register_load_state_dict_pre_hook(_translate)

    @property
    def mem_tokens(self) -> Tensor | None:
        """See the class."""
        return None if self.rate.memory is None else self.rate.memory[:, None]

    @property
    def r_w_bias(self) -> nn.Parameter:
        """See the class."""
        return self.rate.content_bias

    @property
    def r_r_bias(self) -> nn.Parameter:
        """See the class."""
        return self.rate.position_bias

    def forward(
        self,
        states: Tensor,
        actions: Tensor | None,
        rtgs: Tensor,
        target: Tensor | None,
        timesteps: Tensor | None,
        *mems: Tensor,
        mem_tokens: Tensor | None = None,
        masks: Tensor | None = None,
        hidden: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Reads one segment of K steps.

        Args:
            states: ``[B, K, state_dim]`` or, for images, ``[B, K, C, H, W]`` (or with a 1 before C), whose values are
                taken as they are: the published code divides pixels by 255 before.
            actions: ``[B, k, 1]`` or ``[B, k, act_dim]``, of any type: the last K of them are read, or the last K - 1
                where ``target`` is None, since the last step's is not known yet. None at an episode's first step.
            rtgs: ``[B, K, 1]``.
            target: only whether it is None counts.
            timesteps, masks, hidden, kwargs: without effect, as published.
            mems: none, or ``n_layer + 1`` tensors ``[M, B, d]`` from the call before.
            mem_tokens: ``[num_mem_tokens, B, d]``: the parameter of that name repeated over the batch, or what the
                call before gave.

        Returns:
            ``logits [B, K, act_dim]`` (actions themselves where they are continuous), read at the states;
            ``new_mems``, ``n_layer + 1`` tensors ``[M, B, d]`` without gradient, or None where ``mem_len`` is 0; and
            ``mem_tokens [num_mem_tokens, B, d]`` or None.

        Raises:
            ValueError: if a shape does not fit, naming the argument.
        """
        observations = self._observations(states)
        batch, steps = observations.shape[:2]
        if tuple(rtgs.shape) != (batch, steps, 1):
            raise ValueError(f"rtgs must be {[batch, steps, 1]}, got {list(rtgs.shape)}")
        acted = self._actions(actions, batch, steps, steps if target is not None else steps - 1)
        state = SegmentState(
            self._memory(mem_tokens, batch), [m.transpose(0, 1) for m in self._cache(mems, batch)]
        )
        before = state.cache.pop() if state.cache else None
        out, last = self.rate._read(observations, acted, rtgs, state)
        new_mems = None
        if before is not None:
            # The last layer's output is kept as well, though no layer sees it.
            rest = roll_cache([before.to(last.dtype)], [last], self.mem_len)
            new_mems = [layer.transpose(0, 1) for layer in (*out.state.cache, *rest)]
        memory = out.state.memory
        return {
            "logits": out.predictions,
            "new_mems": new_mems,
            "mem_tokens": None if memory is None else memory.transpose(0, 1),
        }

    def _observations(self, states: Tensor) -> Tensor:
        shape = self.rate.config.observation_shape
        if states.dim() == 6 and len(shape) == 3 and states.shape[2] == 1:
            states = states[:, :, 0]
        if states.dim() != 2 + len(shape) or tuple(states.shape[2:]) != shape or not states.shape[1]:
            raise ValueError(f"states must be [B, K, {', '.join(map(str, shape))}], got {list(states.shape)}")
        return states.to(self.rate.content_bias.dtype)  # floating point: pixels are taken as they are

    def _actions(self, actions: Tensor | None, batch: int, steps: int, known: int) -> Tensor:
        config = self.rate.config
        discrete = config.action == "discrete"
        size = 1 if discrete else config.action_size
        if actions is None:
            if steps > 1:
                raise ValueError(
                    f"actions must be given for {steps} steps, got None: that is an episode's first step"
                )
            actions, known = self.rate.content_bias.new_zeros(batch, 0, size), 0
        if actions.dim() != 3 or actions.shape[0] != batch or actions.shape[2] != size:
            raise ValueError(f"actions must be {[batch, 'k', size]}, got {list(actions.shape)}")
        if actions.shape[1] < known:
            raise ValueError(f"actions must hold at least {known} steps, got {actions.shape[1]}")
        actions = actions[:, actions.shape[1] - known :]
        if not discrete:
            return actions.to(self.rate.content_bias.dtype)
        index = actions[..., 0].long()
        if self.padding_idx is not None:
            index = torch.where(index == self.padding_idx, self.act_dim, index)
        return index

    def _memory(self, mem_tokens: Tensor | None, batch: int) -> Tensor | None:
        expected = [self.num_mem_tokens, batch, self.d_model]
        if self.num_mem_tokens == 0:
            if mem_tokens is not None:
                raise ValueError("mem_tokens must be None: this model has no memory tokens")
            return None
        if mem_tokens is None or list(mem_tokens.shape) != expected:
            got = None if mem_tokens is None else list(mem_tokens.shape)
            raise ValueError(
                f"mem_tokens must be {expected}, as model.mem_tokens.repeat(1, {batch}, 1) is, got {got}"
            )
        return mem_tokens.transpose(0, 1)

    def _cache(self, mems: tuple[Tensor, ...], batch: int) -> list[Tensor]:
        if not self.mem_len:
            if mems:
                raise ValueError(f"mems must be left out where mem_len is 0, got {len(mems)} tensors")
            return []
        if not mems:
            empty = self.rate.content_bias.new_zeros(0, batch, self.d_model)
            return [empty] * (self.n_layer + 1)
        if len(mems) != self.n_layer + 1:
            raise ValueError(f"mems must be {self.n_layer + 1} tensors, got {len(mems)}")
        for index, layer in enumerate(mems):
            expected = [mems[0].shape[0], batch, self.d_model]
            if list(layer.shape) != expected:
                raise ValueError(f"mems[{index}] must be {expected}, got {list(layer.shape)}")
        return list(mems)


def _publish(module: RATE, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    """After ``state_dict()``: our names become the published ones."""
    own = {name: state_dict.pop(name) for name in list(state_dict) if name.startswith(prefix)}
    unused, ours = f"{prefix}unused.", f"{prefix}rate."
    found = {name.removeprefix(unused): value for name, value in own.items() if name.startswith(unused)}
    mine = {name.removeprefix(ours): value for name, value in own.items() if name.startswith(ours)}
    found |= names.published(mine, module.rate.config, environment_named(module.env_name))
    state_dict.update({prefix + name: value for name, value in found.items()})


def _translate(
    module: RATE,
    state_dict: dict[str, Any],
    prefix: str,
    _: Any,
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Before ``load_state_dict()``: published names become ours; what does not fit is named as it is published.

    An entry that is missing or of another shape leaves the module's own value, so that torch does not name it again.
    """
    given = {name: state_dict.pop(name) for name in list(state_dict) if name.startswith(prefix)}
    given = {name.removeprefix(prefix): value for name, value in given.items()}
    expected = module.state_dict()
    unexpected += [prefix + name for name in given if name not in expected]
    for name, own in expected.items():
        if name not in given:
            missing.append(prefix + name)
        elif given[name].shape != own.shape:
            errors.append(f"{prefix}{name} must be {list(own.shape)}, got {list(given[name].shape)}")
        else:
            continue
        given[name] = own
    environment = environment_named(module.env_name)
    for name, value in names.translated(given, module.rate.config, environment):
        state_dict[f"{prefix}rate.{name}"] = value
    for name in module.unused.state_dict():
        state_dict[f"{prefix}unused.{name}"] = given[name]
