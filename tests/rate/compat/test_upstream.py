"""Whole models against the published implementation: every segment, gradients, memory, cache and acting."""

import pytest
import torch
from torch.nn import functional as F

from rate.compat import upstream
from rate_kernels.triton_support import interpreted
from tests import golden

MODELS = ["dt", "rmt", "trxl", "rate", "rate_cache", "rate_continuous", "rate_gtrxl"]
TOLERANCE = 1e-4


def _load(name, backend):
    meta, arrays = golden.load(f"model_{name}")
    parameters = {k.removeprefix("state_dict/"): v for k, v in arrays.items() if k.startswith("state_dict/")}
    model = upstream.load(parameters, meta["config"], meta["context_length"])
    model.backend = backend
    actions = arrays["actions"]
    if model.config.action == "discrete":
        actions = actions[..., 0].long()
    return model, meta, arrays, actions


@pytest.mark.interpreter
@pytest.mark.parametrize("backend", ["triton"] if interpreted() else ["native", "sdpa", "reference"])
@pytest.mark.parametrize("name", MODELS)
def test_segments(name, backend):
    model, meta, arrays, actions = _load(name, backend)
    k, state = meta["context_length"], None
    for n in range(meta["segments"]):
        steps = slice(n * k, (n + 1) * k)
        out = model(arrays["states"][:, steps], actions[:, steps], arrays["rtgs"][:, steps], state)
        assert golden.error(out.predictions, arrays[f"seg{n}_logits"]) < TOLERANCE
        state = out.state.detach()
        assert (state.memory is None) == (f"seg{n}_mem_tokens" not in arrays)
        if state.memory is not None:
            assert golden.error(state.memory.transpose(0, 1), arrays[f"seg{n}_mem_tokens"]) < TOLERANCE
        assert bool(state.cache) == (f"seg{n}_cache0" in arrays)
        for layer, cache in enumerate(state.cache):
            assert golden.error(cache.transpose(0, 1), arrays[f"seg{n}_cache{layer}"]) < TOLERANCE


@pytest.mark.interpreter
@pytest.mark.parametrize("backend", ["triton"] if interpreted() else ["native", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients(name, backend):
    model, meta, arrays, actions = _load(name, backend)
    steps = slice(0, meta["context_length"])
    out = model(arrays["states"][:, steps], actions[:, steps], arrays["rtgs"][:, steps])
    if model.config.action == "discrete":
        loss = F.cross_entropy(out.predictions.flatten(0, 1), actions[:, steps].flatten())
    else:
        loss = F.mse_loss(out.predictions, actions[:, steps])
    assert golden.error(loss, arrays["seg0_loss"]) < TOLERANCE
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    theirs = {k.removeprefix("seg0_grad/"): v for k, v in arrays.items() if k.startswith("seg0_grad/")}
    expected = upstream._translate(theirs, model.config)
    compared = 0
    for (parameter_name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        if gradient is None:
            assert parameter_name.startswith("gate.")  # no loss reaches the gate within one segment
            continue
        assert golden.error(gradient, expected[parameter_name].view_as(parameter)) < TOLERANCE, parameter_name
        compared += 1
    assert compared == len(expected)


@pytest.mark.parametrize("name", MODELS)
def test_acting(name):
    model, _, arrays, actions = _load(name, None)
    batch, steps = arrays["states"].shape[:2]
    actor = model.actor(batch)
    actor.reset(arrays["rtgs"][:, 0, 0])
    logits = []
    given = iter(range(steps))

    def act_as_recorded(predictions):
        logits.append(predictions)
        return actions[:, next(given)]

    actor._choose = act_as_recorded
    for t in range(steps):
        reward = arrays["rtgs"][:, t - 1, 0] - arrays["rtgs"][:, t, 0] if t else None
        actor.act(arrays["states"][:, t], reward)
    assert golden.error(torch.stack(logits, 1), arrays["rollout_logits"]) < TOLERANCE


def test_settings_that_are_not_reproduced_are_named():
    meta, _ = golden.load("model_rate")
    with pytest.raises(ValueError, match="clamp_len must be -1 here, got 5"):
        upstream.config_from_upstream(meta["config"] | {"clamp_len": 5})
    with pytest.raises(ValueError, match=r"env_name must be one of .*, got 'chess'"):
        upstream.config_from_upstream(meta["config"] | {"env_name": "chess"})


def test_a_missing_parameter_is_named():
    meta, arrays = golden.load("model_rate")
    parameters = {k.removeprefix("state_dict/"): v for k, v in arrays.items() if k.startswith("state_dict/")}
    parameters.pop("layers.1.dec_attn.r_net.weight")
    with pytest.raises(ValueError, match=r"state_dict lacks 'layers.1.attention.position.weight'"):
        upstream.load(parameters, meta["config"])
