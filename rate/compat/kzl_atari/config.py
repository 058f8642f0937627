"""The settings of the Atari model, as the original takes them."""

from __future__ import annotations

from typing import Any


class GPTConfig:
    """Settings of :class:`rate.compat.kzl_atari.GPT`; every keyword becomes an attribute, known or not.

    Args:
        vocab_size: number of actions.
        block_size: tokens of the longest window, three per step.
        n_layer, n_head, n_embd: depth, attention heads, width.
        model_type: ``"reward_conditioned"`` (return-to-go, state, action) or ``"naive"`` (state, action).
        max_timestep: the last step of an episode that the table of timesteps tells apart.
        embd_pdrop, resid_pdrop, attn_pdrop: dropout on embeddings, on what each part adds, on attention weights.
        memory_tokens: memory tokens carried from segment to segment; 0 is the original.
        segment_length: steps per segment; a third of the window's by default, rounded up.
        gate_heads: heads of the memory retention gate; 0 hands memory over as written.
    """

    embd_pdrop = 0.1
    resid_pdrop = 0.1
    attn_pdrop = 0.1
    memory_tokens = 0
    segment_length: int | None = None
    gate_heads = 1

    def __init__(self, vocab_size: int, block_size: int, **kwargs: Any) -> None:
        self.vocab_size = vocab_size
        self.block_size = block_size
        for name, value in kwargs.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:  # asked only for what nobody has set
        raise AttributeError(f"config has no {name}: give GPTConfig the keyword {name}=")
