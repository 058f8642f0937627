"""Our attention inside transformers' own ``DecisionTransformerModel``, through its attention interface.

transformers asks the mask function of a name for a mask, once per forward pass, and hands it to the attention function
of that name in every layer. Our mask says no more than where real tokens are: ``int64 [B]``, the first real one of each
row, or, where padding stands between real tokens, ``bool [B, L]``. Padding at the end needs nothing: under a causal
mask no real token sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, DecisionTransformerModel
from transformers.masking_utils import causal_mask_function
from transformers.models.decision_transformer.modeling_decision_transformer import (
    DecisionTransformerGPT2Attention,
)

from rate.compat.huggingface.recording import taken_from
from rate.compat.windows import padding_first
from rate_kernels import SegmentLayout, memory_attention
from rate_kernels.attention.reference import attention_weights

NAME = "rate"
"""Of our attention among transformers' implementations."""

_LAYOUT = SegmentLayout(write_memory=False)
_REFUSED = ("softcap", "sliding_window", "s_aux", "position_bias", "head_mask")
_OTHERWISE = "; model.set_attn_implementation('eager') computes it"


def enable(model: DecisionTransformerModel) -> DecisionTransformerModel:
    """Lets ``model`` compute its attention with :func:`rate_kernels.memory_attention`; outputs stay what they are.

    What stands on padded steps differs, and means as little as before. ``output_attentions=True`` gives the weights
    as computed by the reference, in full.

    Args:
        model: a ``DecisionTransformerModel``, or a model that has one in it.

    Returns:
        ``model`` itself; :func:`disable` gives it back the attention it had.

    Raises:
        TypeError: if there is no Decision Transformer in ``model``.
    """
    layers = _attention_layers(model)
    if model.config._attn_implementation != NAME:
        model._attention_before_rate = model.config._attn_implementation
        model.set_attn_implementation(NAME)
    for layer in layers:
        if _pass_on_request not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_pass_on_request, with_kwargs=True)
    return model


def disable(model: DecisionTransformerModel) -> DecisionTransformerModel:
    """Gives ``model`` back the attention that it had before :func:`enable`."""
    for layer in _attention_layers(model):
        for number, hook in list(layer._forward_pre_hooks.items()):
            if hook is _pass_on_request:
                del layer._forward_pre_hooks[number], layer._forward_pre_hooks_with_kwargs[number]
    if model.config._attn_implementation == NAME:
        model.set_attn_implementation(getattr(model, "_attention_before_rate", "eager"))
    return model


def _attention_layers(model: Any) -> list[nn.Module]:
    modules = model.modules() if isinstance(model, nn.Module) else ()
    layers: list[nn.Module] = [m for m in modules if isinstance(m, DecisionTransformerGPT2Attention)]
    if not layers:
        raise TypeError(f"model must be transformers' DecisionTransformerModel, got {type(model).__name__}")
    return layers


def _pass_on_request(layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The layer keeps to itself whether weights are asked for; what it does not know it passes on."""
    return args, kwargs | {"rate_weights": bool(kwargs.get("output_attentions"))}


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> Tensor:
    """Where real tokens are: int64 ``[B]``, the first one, or bool ``[B, L]``.

    Arguments are those that transformers calls every mask function with.

    Raises:
        ValueError: for a mask that is not causal, or with keys of earlier calls.
    """
    if mask_function is not causal_mask_function:
        raise ValueError(f"{NAME!r} attention knows the causal mask alone, got another{_OTHERWISE}")
    if q_length != kv_length or _known_to_differ(q_offset) or _known_to_differ(kv_offset):
        raise ValueError(
            f"past_key_values must be empty for {NAME!r} attention, got keys {kv_length} for {q_length} tokens"
            f"{_OTHERWISE}"
        )
    if attention_mask is None:
        return torch.zeros(batch_size, dtype=torch.int64, device=device)
    real = attention_mask.bool()
    if torch.compiler.is_compiling():
        return real  # values are not to be looked at
    first = real.to(torch.int8).argmax(1)
    count = real.sum(1)
    last = first + count
    column = torch.arange(real.shape[1], device=real.device)
    together = ((column >= first[:, None]) & (column < last[:, None])) == real
    return first if bool(together.all()) else real


def _known_to_differ(offset: int | Tensor) -> bool:
    return bool(offset != 0)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    rate_weights: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention function: ``query``, ``key``, ``value [B, H, L, d_head]`` to ``[B, L, H, d_head]``.

    Args:
        module: the layer that calls.
        attention_mask: from :func:`mask`.
        scaling: factor of all scores; ``1 / sqrt(d_head)`` by default.
        dropout: on attention weights.
        rate_weights: whether to return the weights, computed by the reference.

    Returns:
        The output, and the weights ``[B, H, L, L]`` (after dropout, as transformers has them) or None.

    Raises:
        ValueError: for what this attention cannot express.
    """
    _check(module, query, key, attention_mask, kwargs)
    assert attention_mask is not None
    dtype = query.dtype
    if getattr(module, "reorder_and_upcast_attn", False):
        upcast = torch.promote_types(dtype, torch.float32)
        query, key, value = (x.to(upcast) for x in (query, key, value))
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    place = None
    if attention_mask.dim() == 1:
        start = attention_mask
    else:
        start, place = padding_first(attention_mask)
        rows = torch.arange(len(place), device=place.device)[:, None]
        query, key, value = (torch.empty_like(x).index_put((rows, place), x) for x in (query, key, value))
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    weights = None
    if rate_weights:
        weights = F.dropout(attention_weights(query, key, _LAYOUT, None, scaling, start), dropout)
        out = torch.einsum("bhij,bjhd->bihd", weights, value)
    else:
        out = memory_attention(query, key, value, _LAYOUT, scale=scaling, dropout_p=dropout, key_start=start)
    if place is not None:
        out = out[rows, place]
        if weights is not None:
            weights = taken_from(weights, place)
    return out.to(dtype), None if weights is None else weights.to(dtype)


def _check(
    module: nn.Module, query: Tensor, key: Tensor, attention_mask: Tensor | None, extras: dict[str, Any]
) -> None:
    if attention_mask is None:
        raise ValueError(
            f"attention_mask must come from the mask function registered as {NAME!r}, got None: which tokens may be "
            "seen is not known"
        )
    batch, _, length, _ = query.shape
    ours = (attention_mask.dim() == 1 and attention_mask.dtype == torch.int64) or (
        attention_mask.dim() == 2 and attention_mask.dtype == torch.bool and attention_mask.shape[1] == length
    )
    if not ours or len(attention_mask) != batch:
        raise ValueError(
            f"attention_mask must be [B, L], 1 where tokens are real, for {NAME!r} attention, got "
            f"{list(attention_mask.shape)} of {attention_mask.dtype}{_OTHERWISE}"
        )
    if key.shape != query.shape:
        raise ValueError(
            f"key must be {list(query.shape)} as query for {NAME!r} attention, got {list(key.shape)}{_OTHERWISE}"
        )
    if not getattr(module, "is_causal", True):
        raise ValueError(f"{NAME!r} attention is causal, {type(module).__name__} is not{_OTHERWISE}")
    for name in _REFUSED:
        if extras.get(name) is not None:
            raise ValueError(f"{name} must be None for {NAME!r} attention, got {extras[name]!r}{_OTHERWISE}")


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, mask)
