"""The originals' state dicts: read by the drop-in classes under the originals' names, and given back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rate.compat import corl, kzl
from tests.rate.compat.helpers import randomise


def build_kzl(memory_tokens: int = 0) -> kzl.DecisionTransformer:
    settings = {"n_layer": 2, "n_head": 2, "max_ep_len": 20, "n_ctx": 12}
    model = kzl.DecisionTransformer(5, 3, 8, max_length=4, memory_tokens=memory_tokens, **settings)
    randomise(model)
    return model


def build_corl(memory_tokens: int = 0) -> corl.DecisionTransformer:
    model = corl.DecisionTransformer(5, 3, 4, 20, 8, 2, 2, memory_tokens=memory_tokens)
    randomise(model)
    return model


BUILD = {"kzl": build_kzl, "corl": build_corl}
LINEARS = {"kzl": "transformer.h.0.attn.c_attn.weight", "corl": "blocks.0.attention.in_proj_weight"}


def shapes_of_kzl() -> dict[str, list[int]]:
    """What the original's state dict holds at the sizes above."""
    shapes = {"embed_timestep.weight": [20, 8], "transformer.wte.weight": [1, 8]}
    for name, (out, into) in {
        "embed_return": (8, 1),
        "embed_state": (8, 5),
        "embed_action": (8, 3),
        "predict_state": (5, 8),
        "predict_action.0": (3, 8),
        "predict_return": (1, 8),
    }.items():
        shapes |= {f"{name}.weight": [out, into], f"{name}.bias": [out]}
    norms = ["embed_ln", "transformer.ln_f"]
    for layer in range(2):
        block = f"transformer.h.{layer}"
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        for name, (into, out) in {
            "attn.c_attn": (8, 24),
            "attn.c_proj": (8, 8),
            "mlp.c_fc": (8, 32),
            "mlp.c_proj": (32, 8),
        }.items():
            shapes |= {f"{block}.{name}.weight": [into, out], f"{block}.{name}.bias": [out]}
        shapes |= {f"{block}.attn.bias": [1, 1, 12, 12], f"{block}.attn.masked_bias": []}
    return shapes | {f"{name}.{kind}": [8] for name in norms for kind in ("weight", "bias")}


def shapes_of_corl() -> dict[str, list[int]]:
    """What the original's state dict holds at the sizes above."""
    shapes = {"timestep_emb.weight": [24, 8]}
    linears = {"state_emb": (8, 5), "action_emb": (8, 3), "return_emb": (8, 1), "action_head.0": (3, 8)}
    norms = ["emb_norm", "out_norm"]
    for layer in range(2):
        block = f"blocks.{layer}"
        norms += [f"{block}.norm1", f"{block}.norm2"]
        shapes |= {f"{block}.attention.in_proj_weight": [24, 8], f"{block}.attention.in_proj_bias": [24]}
        shapes[f"{block}.causal_mask"] = [12, 12]
        linears |= {
            f"{block}.attention.out_proj": (8, 8),
            f"{block}.mlp.0": (32, 8),
            f"{block}.mlp.2": (8, 32),
        }
    for name, (out, into) in linears.items():
        shapes |= {f"{name}.weight": [out, into], f"{name}.bias": [out]}
    return shapes | {f"{name}.{kind}": [8] for name in norms for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("name", "expected"), [("kzl", shapes_of_kzl), ("corl", shapes_of_corl)], ids=["kzl", "corl"]
)
def test_names_and_shapes_are_the_originals(name: str, expected: Callable[[], dict[str, list[int]]]) -> None:
    theirs = BUILD[name]().original_state_dict()
    assert {key: list(value.shape) for key, value in theirs.items()} == expected()


def test_masks_are_the_originals() -> None:
    theirs = build_kzl().original_state_dict()
    mask = theirs["transformer.h.1.attn.bias"]
    assert mask.dtype == torch.uint8 and torch.equal(mask[0, 0], torch.ones(12, 12).tril().to(torch.uint8))
    assert theirs["transformer.h.1.attn.masked_bias"] == -1e4
    blocked = build_corl().original_state_dict()["blocks.1.causal_mask"]  # True: may not attend
    assert blocked.dtype == torch.bool and torch.equal(blocked, ~torch.ones(12, 12).tril().bool())


@pytest.mark.parametrize("name", BUILD)
def test_state_dicts_go_both_ways(name: str) -> None:
    model = BUILD[name]()
    for state_dict in (model.state_dict(), model.original_state_dict()):
        loaded = BUILD[name]()
        for parameter in loaded.parameters():
            nn.init.zeros_(parameter)
        assert not any(loaded.load_state_dict(state_dict))
        for key, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key
    theirs = model.original_state_dict()
    next(iter(model.parameters())).data.zero_()
    assert any(value.any() for key, value in theirs.items() if "weight" in key)  # a copy, not a view


@pytest.mark.parametrize("name", BUILD)
def test_a_model_inside_another_module_loads_too(name: str) -> None:
    model, outer = BUILD[name](), nn.DataParallel(BUILD[name]())
    randomise(outer.module, seed=1)
    outer.load_state_dict({f"module.{key}": value for key, value in model.original_state_dict().items()})
    for key, value in model.state_dict().items():
        assert torch.equal(outer.module.state_dict()[key], value), key


@pytest.mark.parametrize("name", BUILD)
def test_memory_joins_a_trained_original(name: str) -> None:
    original, model = BUILD[name](), BUILD[name](memory_tokens=2)
    randomise(model, seed=1)
    own = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(original.original_state_dict())
    loaded = model.state_dict()
    assert {key for key in own if torch.equal(loaded[key], own[key])} == {
        key for key in own if key.startswith("memory.")
    }
    assert all(torch.equal(loaded[key], value) for key, value in original.state_dict().items())
    with pytest.raises(ValueError, match="memory_tokens must be 0"):
        model.original_state_dict()
    with pytest.raises(
        RuntimeError, match=r"Missing.*memory\.initial"
    ):  # a file of ours has memory or is not it
        model.load_state_dict(original.state_dict())


@pytest.mark.parametrize("memory_tokens", [0, 2])
@pytest.mark.parametrize("name", BUILD)
def test_entries_that_do_not_fit_are_named(name: str, memory_tokens: int) -> None:
    def refused(state_dict: dict, *parts: str) -> None:
        with pytest.raises(RuntimeError) as caught:
            BUILD[name](memory_tokens).load_state_dict(state_dict)
        for part in parts:
            assert part in str(caught.value)

    theirs, linear = BUILD[name]().original_state_dict(), LINEARS[name]
    missing = {key: value for key, value in theirs.items() if key != linear}
    refused(missing, "Missing key(s)", linear)
    extra = linear.replace(".0.", ".7.")
    refused(theirs | {extra: theirs[linear]}, "Unexpected key(s)", extra)
    turned = theirs | {linear: theirs[linear].T}
    expected = f"{linear} must be {list(theirs[linear].shape)}, got {list(theirs[linear].T.shape)}"
    refused(turned, expected)
    model = BUILD[name](memory_tokens)
    randomise(model, seed=1)
    ours = model.transformer.blocks[0].attention.qkv.weight.clone()
    found = model.load_state_dict(missing | {extra: theirs[linear]}, strict=False)
    assert found.missing_keys == [linear] and found.unexpected_keys == [extra]
    assert torch.equal(model.transformer.blocks[0].attention.qkv.weight, ours)
