"""State dicts of the original classes: read in place of ours by ``load_state_dict``, and given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Original(NamedTuple):
    """Where a parameter stands in the original's state dict.

    Args:
        names: its name there, or several that are joined along the first dimension.
        transposed: whether it is ``[in, out]`` there, as in GPT-2.
    """

    names: tuple[str, ...]
    transposed: bool = False


GPT2_PARTS = {
    "attention_norm.": "ln_1.",
    "attention.qkv.": "attn.c_attn.",
    "attention.output.": "attn.c_proj.",
    "feed_forward_norm.": "ln_2.",
    "feed_forward.into.": "mlp.c_fc.",
    "feed_forward.out.": "mlp.c_proj.",
}
"""The parts of :class:`rate.compat.transformer.Block` under GPT-2's names."""


def transformer_names(
    layers: int, block: str, parts: dict[str, str], norm: str, transposed: bool = False
) -> dict[str, Original]:
    """Where an original keeps the parameters of ``self.transformer``.

    Args:
        layers: number of blocks.
        block: prefix of a block there, ``{}`` for its number.
        parts: what comes before ``weight`` and ``bias`` in a block, ours to theirs.
        norm: the same of the norm after the last block.
        transposed: whether linear layers keep ``[in, out]`` there.
    """
    names = {}
    for kind in ("weight", "bias"):
        names[f"transformer.norm.{kind}"] = Original((norm + kind,))
        for layer in range(layers):
            for ours, theirs in parts.items():
                turned = transposed and kind == "weight" and "norm" not in ours
                names[f"transformer.blocks.{layer}.{ours}{kind}"] = Original(
                    (block.format(layer) + theirs + kind,), turned
                )
    return names


class ReadsOriginal(nn.Module):
    """A module whose ``load_state_dict`` takes the original's names as well as its own.

    Memory's own parameters are not in an original's file: they stay as they are, with ``strict=True`` too. Every other
    entry that is missing, left over or of another shape is an error that names it as the original does.
    """

    def _original_names(self) -> dict[str, Original]:
        """Where the original keeps each parameter that it has, by our name for it; here those of the same name."""
        return {
            name: Original((name,))
            for name, _ in self.named_parameters()
            if not name.startswith(("transformer.", "memory."))
        }

    def _original_extras(self) -> dict[str, Callable[[], Tensor]]:
        """What the original's state dict holds beside parameters in use, by name: masks, mostly."""
        return {}

    def original_state_dict(self) -> dict[str, Tensor]:
        """The parameters under the original's names, for its ``load_state_dict``.

        Raises:
            ValueError: for a model with memory, which the original has not.
        """
        own, names = self.state_dict(), self._original_names()
        if own.keys() - names.keys():
            raise ValueError("memory_tokens must be 0: the original has no place for memory's parameters")
        theirs = {name: make() for name, make in self._original_extras().items()}
        for name, original in names.items():
            for part, value in zip(original.names, own[name].chunk(len(original.names)), strict=True):
                theirs[part] = value.T.contiguous() if original.transposed else value.clone()
        return theirs

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # What a state dict holds under names that are not ours tells whose it is.
        names = self._original_names()
        theirs = {part for original in names.values() for part in original.names} - names.keys()
        if any(prefix + name in state_dict for name in theirs):
            self._translate(state_dict, prefix, missing_keys, error_msgs)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _translate(
        self, state_dict: dict[str, Any], prefix: str, missing: list[str], errors: list[str]
    ) -> None:
        """Replaces the original's entries by ours; left-over ones stay for torch to name."""
        names = self._original_names()
        for name in self._original_extras():
            state_dict.pop(prefix + name, None)
        for name, own in self.state_dict().items():
            original = names.get(name)
            if original is None:
                state_dict.setdefault(prefix + name, own)
                continue
            parts = []
            for part, fits in zip(original.names, own.chunk(len(original.names)), strict=True):
                value = state_dict.pop(prefix + part, None)
                expected = list(fits.T.shape if original.transposed else fits.shape)
                if value is None:
                    missing.append(prefix + part)
                elif list(value.shape) != expected:
                    errors.append(f"{prefix + part} must be {expected}, got {list(value.shape)}")
                else:
                    parts.append(value.T if original.transposed else value)
            # An entry that could not be read keeps our value, so that it is named once and as the original does.
            whole = len(parts) == len(original.names)
            state_dict[prefix + name] = torch.cat(parts) if whole else own
