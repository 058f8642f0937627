"""The baseline is the published formulation: it reproduces recorded outputs of the published code."""

from typing import Any

import pytest
import torch
from torch import Tensor, autograd

from bench.baselines import (
    PublishedAttention,
    PublishedMemoryGate,
    PublishedRATE,
    PublishedTrainingStep,
    published_mask,
    rollout,
)
from bench.baselines.published_attention import relative_shift
from bench.baselines.published_model import SinusoidTable
from bench.baselines.training_step import published_loss
from tests import golden

LAYER_TOLERANCE = 1e-5
MODEL_TOLERANCE = 1e-4

ATTENTION = ["cache_read", "memory_and_cache", "memory_front_only", "memory_tokens", "no_memory"]
GATES = ["leaky_relu", "none", "relu", "tanh"]
MODELS = ["dt", "rate", "rate_cache", "rate_continuous", "rate_gtrxl", "rmt", "trxl"]


def section(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def assert_near(actual: Tensor | None, expected: Tensor, tolerance: float, what: str) -> None:
    """Relative error by norm."""
    assert actual is not None, f"{what} is missing"
    assert actual.shape == expected.shape, f"{what}: {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    error = golden.error(actual, expected)
    assert error <= tolerance, f"{what}: relative error {error:.3g} above {tolerance:.3g}"


def test_every_golden_file_is_covered() -> None:
    files = golden.names()
    groups = [("attn", ATTENTION), ("gate", GATES), ("model", MODELS)]
    assert files == {f"{group}_{name}" for group, names in groups for name in names}


@pytest.mark.parametrize("host_copies", [True, False])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str, host_copies: bool) -> None:
    meta, arrays = golden.load(f"attn_{name}")
    w = arrays["w"].requires_grad_()
    u, v = arrays["u"].requires_grad_(), arrays["v"].requires_grad_()
    mask = published_mask(
        w.shape[0], meta["cache_len"], meta["num_mem_tokens"], meta["mem_at_end"], meta["read_mem_from_cache"]
    )
    assert torch.equal(mask, arrays["mask"])

    layer = PublishedAttention(meta["n_head"], meta["d_model"], meta["d_head"], host_copies=host_copies)
    for part in ("qkv", "r", "o"):
        layer.get_parameter(f"{part}_net.weight").data = arrays[f"{part}_weight"]
    r = SinusoidTable(meta["d_model"])(torch.arange(mask.shape[1] - 1, -1, -1.0))
    out, on_host = layer(w, r, u, v, mask[:, :, None], arrays.get("cache"))
    assert (on_host is not None) == host_copies
    out = out - w  # golden outputs are without the residual
    out.backward(arrays["grad_out"])

    assert_near(out, arrays["out"], LAYER_TOLERANCE, "out")
    gradients = {"w": w.grad, "u": u.grad, "v": v.grad}
    gradients |= {
        f"{part}_weight": layer.get_parameter(f"{part}_net.weight").grad for part in ("qkv", "r", "o")
    }
    for key, gradient in gradients.items():
        assert_near(gradient, arrays[f"d_{key}"], LAYER_TOLERANCE, f"d_{key}")


def test_relative_shift_wraps_around() -> None:
    """Cells ahead of a query hold one zero, then the beginning of the next query's row."""
    queries, cache = 3, 2
    keys = cache + queries
    scores = torch.arange(1.0, queries * keys + 1).view(queries, keys)
    shifted = relative_shift(scores[:, :, None, None])[:, :, 0, 0]
    for i in range(queries):
        for j in range(keys):
            if j <= i + cache:
                expected = scores[i, j + queries - 1 - i]
            elif j == i + cache + 1:
                expected = torch.tensor(0.0)
            else:
                expected = scores[i + 1, j - i - cache - 2]
            assert shifted[i, j] == expected


@pytest.mark.parametrize("name", GATES)
def test_gate(name: str) -> None:
    meta, arrays = golden.load(f"gate_{name}")
    gate = PublishedMemoryGate(meta["d_model"], meta["n_head"], activation=meta["activation"])
    names = {key: key.replace(".", "_") for key in gate.state_dict()}
    gate.load_state_dict({key: arrays[flat] for key, flat in names.items()})
    memory, update = arrays["mem"].requires_grad_(), arrays["update"].requires_grad_()
    out = gate(memory, update)
    out.backward(arrays["grad_out"])

    assert_near(out, arrays["out"], LAYER_TOLERANCE, "out")
    assert_near(memory.grad, arrays["d_mem"], LAYER_TOLERANCE, "d_mem")
    assert_near(update.grad, arrays["d_update"], LAYER_TOLERANCE, "d_update")
    for key, flat in names.items():
        gradient, expected = gate.get_parameter(key).grad, arrays[f"d_{flat}"]
        if key == "wk.bias":
            # A shift common to all keys leaves a softmax unchanged: the gradient is 0 but for rounding.
            assert gradient is not None
            scale = LAYER_TOLERANCE * arrays["d_wk_weight"].norm()
            assert gradient.norm() <= scale and expected.norm() <= scale
        else:
            assert_near(gradient, expected, LAYER_TOLERANCE, f"d_{flat}")


def build(name: str, **options: Any) -> tuple[PublishedRATE, int, int, dict[str, Tensor]]:
    """The golden model, its steps per segment, its number of segments, and the arrays."""
    meta, arrays = golden.load(f"model_{name}")
    model = PublishedRATE(**meta["config"], **options)
    model.load_state_dict(section(arrays, "state_dict/"), strict=True)
    return model, meta["context_length"], meta["segments"], arrays


@pytest.mark.parametrize("host_copies", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_model_segments(name: str, host_copies: bool) -> None:
    model, steps, segments, arrays = build(name, host_copies=host_copies)
    memory = model.initial_memory(arrays["states"].shape[0])
    cache: list[Tensor] = []
    for n in range(segments):
        part = slice(n * steps, (n + 1) * steps)
        states, actions, rtgs = (arrays[key][:, part] for key in ("states", "actions", "rtgs"))
        out = model(states, actions, rtgs, actions, None, *cache, mem_tokens=memory)
        assert_near(out["logits"], arrays[f"seg{n}_logits"], MODEL_TOLERANCE, f"logits of segment {n}")
        if n == 0:
            loss = published_loss(model, out["logits"], actions)
            autograd.backward(loss)
            assert_near(loss, arrays["seg0_loss"], MODEL_TOLERANCE, "loss")
        memory, cache = out["mem_tokens"], out["new_mems"]
        if memory is not None:
            memory = memory.detach()
            assert_near(memory, arrays[f"seg{n}_mem_tokens"], MODEL_TOLERANCE, f"memory after segment {n}")
        assert len(cache) == len(section(arrays, f"seg{n}_cache"))
        for i, rows in enumerate(cache):
            assert_near(rows, arrays[f"seg{n}_cache{i}"], MODEL_TOLERANCE, f"cache {i} after segment {n}")

    expected = section(arrays, "seg0_grad/")
    gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    assert gradients.keys() == expected.keys()
    for key, gradient in gradients.items():
        assert_near(gradient, expected[key], MODEL_TOLERANCE, f"gradient of {key}")


@pytest.mark.parametrize("name", MODELS)
def test_model_rollout(name: str) -> None:
    model, steps, _, arrays = build(name)
    logits = rollout(model, arrays["states"], arrays["actions"], arrays["rtgs"], steps)
    assert_near(logits, arrays["rollout_logits"], MODEL_TOLERANCE, "rollout logits")


def test_memory_must_match_the_model() -> None:
    model, steps, _, arrays = build("rate")
    with pytest.raises(ValueError, match="5 memory tokens"):
        model(arrays["states"][:, :steps], None, arrays["rtgs"][:, :steps], None, None)


def test_training_step() -> None:
    """The timed step is the real one, whatever the switch: same loss, every trained parameter reached."""
    losses = []
    for host_copies in (True, False):
        step = PublishedTrainingStep(batch_size=2, steps=4, host_copies=host_copies)
        torch.manual_seed(1)
        losses.append(step())
        untrained = {key for key, value in step.model.named_parameters() if value.grad is None}
        unused = ("embed_timestep.", "embed_ln.", "mha_mem_to_mem.")
        assert untrained == {
            key
            for key, _ in step.model.named_parameters()
            if key.startswith(unused) or ".dec_attn.layer_norm." in key
        }
    assert losses[0] == losses[1]
