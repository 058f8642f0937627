"""The Decision Transformer of transformers, with RATE's memory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DecisionTransformerConfig, DecisionTransformerModel, PreTrainedModel

from rate.compat.drop_in import DropIn, check_shape, check_timesteps
from rate.compat.huggingface.config import RateConfig
from rate.compat.huggingface.output import RateOutput
from rate.compat.huggingface.recording import Recording
from rate.compat.state_dicts import GPT2_PARTS, Original, transformer_names
from rate.compat.transformer import Block, Transformer
from rate.compat.windows import WindowMemory
from rate.layers import Dropout

_MASK = re.compile(r"encoder\.h\.\d+\.attn\.(bias|masked_bias)")
"""Causal masks, which files of older versions hold."""


class RateModel(DropIn, PreTrainedModel):
    """Predicts actions from returns-to-go, states and earlier actions; see :class:`RateConfig` for its settings.

    With ``memory_tokens=0`` it is ``DecisionTransformerModel``. With memory tokens a window is read in segments that
    start at the timesteps that are multiples of ``segment_length``, and memory joins them.

    ``save_pretrained``, ``from_pretrained`` and ``AutoModel.from_pretrained`` are transformers' own. An original's file
    comes in by :meth:`from_decision_transformer`, or its ``state_dict`` by ``load_state_dict``.

    Raises:
        ValueError: for a setting that does not fit.
    """

    config_class = RateConfig
    base_model_prefix = "rate"
    main_input_name = "states"
    supports_gradient_checkpointing = False

    def __init__(self, config: RateConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self._add_memory(
            width, config.max_length, config.memory_tokens, config.segment_length, config.gate_heads
        )
        self.wpe = nn.Embedding(config.n_positions, width)  # a constant: every token has position 0
        self.drop = Dropout(config.embd_pdrop)
        self.transformer = Transformer(
            width,
            config.n_layer,
            config.n_head,
            4 * width if config.n_inner is None else config.n_inner,
            config.activation_function,
            config.attn_pdrop,
            config.resid_pdrop,
            config.layer_norm_epsilon,
        )
        for index, block in enumerate(self.transformer.blocks):
            assert isinstance(block, Block)
            scale = block.attention.scale if config.scale_attn_weights else 1.0
            block.attention.scale = scale / (index + 1 if config.scale_attn_by_inverse_layer_idx else 1)
        self.embed_timestep = nn.Embedding(config.max_ep_len, width)
        self.embed_return = nn.Linear(1, width)
        self.embed_state = nn.Linear(config.state_dim, width)
        self.embed_action = nn.Linear(config.act_dim, width)
        self.embed_ln = nn.LayerNorm(width)  # transformers' own constant within, not layer_norm_epsilon
        self.predict_state = nn.Linear(width, config.state_dim)
        head = nn.Linear(width, config.act_dim)
        self.predict_action = nn.Sequential(head, nn.Tanh()) if config.action_tanh else nn.Sequential(head)
        self.predict_return = nn.Linear(width, 1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """GPT-2's beginnings; memory and gate keep their own, which ``initializer_range`` would all but close.

        transformers calls this with modules that hold parameters themselves.
        """
        gate = () if self.memory.gate is None else self.memory.gate.children()
        if any(module is part for part in gate):
            assert isinstance(module, nn.Linear)
            module.reset_parameters()
            return
        super()._init_weights(module)
        blocks = [block for block in self.transformer.blocks if isinstance(block, Block)]
        last = [part for block in blocks for part in (block.attention.output, block.feed_forward.out)]
        if any(module is part for part in last):
            assert isinstance(module, nn.Linear)
            nn.init.normal_(module.weight, std=self.config.initializer_range / len(last) ** 0.5)
        if isinstance(module, WindowMemory) and module.initial is not None:
            assert module.write_offset is not None
            nn.init.normal_(module.initial, std=0.02)
            nn.init.normal_(module.write_offset, std=0.02)

    def forward(
        self,
        states: Tensor | None = None,
        actions: Tensor | None = None,
        rewards: Tensor | None = None,
        returns_to_go: Tensor | None = None,
        timesteps: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        *,
        memory: Tensor | None = None,
    ) -> RateOutput | tuple[Tensor, Tensor, Tensor]:
        """Reads windows of K steps.

        Args:
            states: ``[B, K, Ds]``; numbers of any dtype are taken in the parameters' own.
            actions: ``[B, K, Da]``; the action of a step is predicted without it.
            rewards: not read.
            returns_to_go: ``[B, K, 1]``.
            timesteps: int64 ``[B, K]``, steps of the episode; the real ones of a row are successive.
            attention_mask: ``[B, K]`` of any dtype, not 0 for real steps and 0 for padding, on either side. None means
                that all are real.
            output_hidden_states, output_attentions: see :class:`RateOutput`; attention weights are computed once
                more for it, by the reference, without dropout.
            return_dict: False for the tuple ``(state_preds, action_preds, return_preds)``.
            memory: ``[B, m, d]``, the ``memory`` of the windows that these go on from. Rows whose first real
                timestep is 0 do not take it.

        Raises:
            ValueError, TypeError: an argument does not fit; the message names it.
        """
        states, actions, returns_to_go, timesteps = self._checked(
            states, actions, returns_to_go, timesteps, attention_mask
        )
        output_hidden_states = _or(output_hidden_states, self.config.output_hidden_states)
        output_attentions = _or(output_attentions, self.config.output_attentions)
        recording = Recording(self.transformer, output_hidden_states, output_attentions)
        time = self.embed_timestep(timesteps)
        embedded = (self.embed_return(returns_to_go), self.embed_state(states), self.embed_action(actions))
        tokens = self.embed_ln(torch.stack([x + time for x in embedded], dim=2))
        tokens = self.drop(tokens + self.wpe.weight[0])
        real = None if attention_mask is None else attention_mask != 0
        hidden, after = self._read_window(tokens, recording, timesteps, real, memory)
        hidden, layers = recording.hidden_states(hidden)
        _, from_state, from_action = hidden.unbind(2)
        predictions = (
            self.predict_state(from_action),
            self.predict_action(from_state),
            self.predict_return(from_action),
        )
        if not _or(return_dict, self.config.return_dict):
            return predictions
        return RateOutput(
            *predictions,
            hidden_states=layers,  # type: ignore[arg-type]  # a tuple, whatever the base class says
            attentions=recording.attentions(real),  # type: ignore[arg-type]
            last_hidden_state=hidden.flatten(1, 2),
            memory=after,
        )

    def get_action(
        self,
        states: Tensor,
        actions: Tensor,
        rewards: Tensor | None,
        returns_to_go: Tensor,
        timesteps: Tensor,
    ) -> Tensor:
        """The action to take in the newest state of an episode.

        Without memory it is predicted from the last ``config.max_length`` steps. With memory it is predicted from the
        whole episode: a call that goes on by one step where the last one ended (see
        :class:`rate.compat.acting.Acting`) reads the running segment alone, any other call all it is given.

        Args:
            states: ``[T, Ds]``, the episode so far; like all of these, with or without a leading 1.
            actions: ``[T, Da]``, the newest not known yet: whatever stands there.
            rewards: not read.
            returns_to_go: ``[T]``.
            timesteps: int64 ``[T]``.

        Returns:
            ``[Da]``.

        Raises:
            ValueError, TypeError: an argument does not fit; the message names it.
        """
        states, actions, returns_to_go, timesteps = self._checked(
            states.reshape(1, -1, self.config.state_dim),
            actions.reshape(1, -1, self.config.act_dim),
            returns_to_go.reshape(1, -1, 1),
            timesteps.reshape(1, -1),
            None,
        )
        steps = (returns_to_go, states, actions)
        if self.config.memory_tokens:
            return self.acting(self._read_steps, steps, timesteps)[0, -1]
        last = self.config.max_length
        return self._read_steps(tuple(x[:, -last:] for x in steps), timesteps[:, -last:], None)[0][0, -1]

    def _read_steps(
        self, steps: tuple[Tensor, ...], timesteps: Tensor, memory: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        returns_to_go, states, actions = steps
        # Not self(...): subclasses for training return a loss from their forward.
        out = RateModel.forward(
            self, states, actions, None, returns_to_go, timesteps, return_dict=True, memory=memory
        )
        assert isinstance(out, RateOutput) and out.action_preds is not None
        return out.action_preds, out.memory

    def _checked(
        self,
        states: Tensor | None,
        actions: Tensor | None,
        returns_to_go: Tensor | None,
        timesteps: Tensor | None,
        attention_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments in the parameters' dtype; raises for one that does not fit."""
        given = {
            "states": states,
            "actions": actions,
            "returns_to_go": returns_to_go,
            "timesteps": timesteps,
        }
        for name, tensor in given.items():
            if tensor is None:
                raise ValueError(f"{name} must be given, got None")
        assert states is not None and actions is not None
        assert returns_to_go is not None and timesteps is not None
        check_shape("states", states, ("B", "K", self.config.state_dim))
        batch, steps = states.shape[:2]
        if not steps:
            raise ValueError("states must hold at least one step, got 0")
        check_shape("actions", actions, (batch, steps, self.config.act_dim))
        check_shape("returns_to_go", returns_to_go, (batch, steps, 1))
        check_shape("timesteps", timesteps, (batch, steps))
        check_timesteps("timesteps", timesteps, self.config.max_ep_len)
        if attention_mask is not None:
            check_shape("attention_mask", attention_mask, (batch, steps))
        dtype = self.embed_state.weight.dtype
        return states.to(dtype), actions.to(dtype), returns_to_go.to(dtype), timesteps

    # --- Checkpoints of the original ----------------------------------------------------------------

    @classmethod
    def from_decision_transformer(
        cls,
        original: DecisionTransformerModel | str | os.PathLike[str],
        *,
        memory_tokens: int = 0,
        segment_length: int | None = None,
        gate_heads: int = 1,
        max_length: int = 20,
    ) -> RateModel:
        """A trained Decision Transformer, with new memory if asked for.

        Args:
            original: the model, its folder, or its name on the Hub.
            memory_tokens, segment_length, gate_heads, max_length: as in :class:`RateConfig`.

        Raises:
            ValueError: if the original has settings that this model has not.
        """
        if not isinstance(original, DecisionTransformerModel):
            original = DecisionTransformerModel.from_pretrained(original)
        fields = original.config.to_dict()
        for name in ("model_type", "architectures", "transformers_version", "bos_token_id", "eos_token_id"):
            fields.pop(name, None)
        memory = {
            "memory_tokens": memory_tokens,
            "segment_length": segment_length,
            "gate_heads": gate_heads,
            "max_length": max_length,
        }
        model: RateModel = cls(RateConfig(**(fields | memory)))
        model.to(original.dtype)  # type: ignore[arg-type]  # transformers' wrapper hides its arguments
        model.load_state_dict(original.state_dict())
        return model.train(original.training)

    def to_decision_transformer(self) -> DecisionTransformerModel:
        """The same model as transformers' own.

        Raises:
            ValueError: for a model with memory, which that one has not.
        """
        parameters = self.original_state_dict()
        known = DecisionTransformerConfig().to_dict().keys() - {"model_type", "transformers_version"}
        fields = {name: value for name, value in self.config.to_dict().items() if name in known}
        model = DecisionTransformerModel(DecisionTransformerConfig(**fields))
        model.to(self.dtype)  # type: ignore[arg-type]
        model.load_state_dict(parameters)
        return model.train(self.training)

    def _original_names(self) -> dict[str, Original]:
        layers = len(self.transformer.blocks)
        names = super()._original_names() | {"wpe.weight": Original(("encoder.wpe.weight",))}
        return names | transformer_names(
            layers, "encoder.h.{}.", GPT2_PARTS, "encoder.ln_f.", transposed=True
        )

    def _original_extras(self) -> dict[str, Callable[[], Tensor]]:
        """The word embedding that nothing reads: zeros."""
        shape = (self.config.vocab_size, self.config.hidden_size)
        return {"encoder.wte.weight": partial(torch.zeros, shape)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        for name in [name for name in state_dict if _MASK.fullmatch(name.removeprefix(prefix))]:
            del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _or(asked: bool | None, otherwise: bool | None) -> bool:
    return bool(otherwise if asked is None else asked)
