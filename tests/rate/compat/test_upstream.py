"""Published checkpoints as our model, and back: every segment, gradients, memory, cache and acting."""

import pytest
import torch
from torch.nn import functional as F

from bench.baselines.published_model import PublishedRATE
from rate import RATE
from rate.compat import upstream
from rate.compat.upstream import names
from rate.compat.upstream.settings import ENVIRONMENTS, environment_named
from rate_kernels.triton_support import interpreted
from tests import golden
from tests.rate import helpers

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
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    gradients = {name: g for name, g in zip(parameters, found, strict=True) if g is not None}
    # No loss reaches the gate within one segment.
    assert all(name.startswith("gate.") for name in parameters.keys() - gradients.keys())
    ours = names.published(gradients, model.config, environment_named(meta["config"]["env_name"]))
    theirs = {k.removeprefix("seg0_grad/"): v for k, v in arrays.items() if k.startswith("seg0_grad/")}
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert golden.error(ours[name], theirs[name]) < TOLERANCE, name


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


@pytest.mark.parametrize("name", MODELS)
def test_our_model_as_a_published_checkpoint(name):
    model, meta, arrays, _ = _load(name, None)
    theirs = {k.removeprefix("state_dict/"): v for k, v in arrays.items() if k.startswith("state_dict/")}
    back = upstream.to_upstream(model, max_ep_len=8)
    unused = {k for k in names.Unused(model.config).state_dict() if k != "pos_emb.inv_freq"}
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in theirs.items()}
    for key in back.keys() - unused:
        assert torch.equal(back[key], theirs[key]), key
    arguments = upstream.config_to_upstream(model.config)
    assert upstream.config_from_upstream(arguments, meta["context_length"]) == model.config
    again = upstream.load(back, arguments, meta["context_length"])
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    # Its entries are its own: changing them does not change the model.
    for value in back.values():
        value.zero_()
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_the_published_class_reads_our_model_strictly(name):
    model, meta, arrays, actions = _load(name, None)
    theirs = PublishedRATE(**upstream.config_to_upstream(model.config)).eval()
    theirs.load_state_dict(upstream.to_upstream(model))
    steps = slice(0, meta["context_length"])
    inputs = arrays["states"][:, steps], actions[:, steps], arrays["rtgs"][:, steps]
    y = arrays["actions"][:, steps]
    out = theirs(inputs[0], y, inputs[2], y, None, mem_tokens=theirs.initial_memory(2))
    assert golden.error(model(*inputs).predictions, out["logits"]) < TOLERANCE


SMALL = {"state_dim": 3, "act_dim": 4, "n_layer": 1, "n_head": 2, "n_head_ca": 1, "d_model": 8, "d_head": 4}
SMALL |= {"d_inner": 8, "dropout": 0.0, "dropatt": 0.0, "num_mem_tokens": 2, "ext_len": 0, "mem_len": 0}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_environment_there_and_back(environment):
    """The encoders of every environment, written out from the published parameters."""
    torch.manual_seed(0)
    config = upstream.config_from_upstream(SMALL | {"env_name": environment}, segment_length=2)
    model = RATE(config).eval()
    theirs = upstream.to_upstream(model)
    arguments = upstream.config_to_upstream(config)
    assert environment_named(arguments["env_name"]) == ENVIRONMENTS[environment]
    loaded = upstream.load(theirs, config)
    kind = ENVIRONMENTS[environment]
    states, returns = torch.rand(1, 2, *config.observation_shape), torch.randn(1, 2, 1)
    actions = torch.rand(1, 2, 4) if kind.continuous else torch.tensor([[1, 3]])
    assert torch.equal(
        loaded(states, actions, returns).predictions, model(states, actions, returns).predictions
    )
    returned, observed, acted = loaded._embed(states, actions, returns)

    def linear(name, x):
        return F.linear(x, theirs[f"{name}.weight"], theirs[f"{name}.bias"])

    colour = environment in ("memory_maze", "vizdoom", "atari")
    expected = linear("ret_emb.0" if colour or environment == "minigrid_memory" else "ret_emb", returns)
    assert torch.allclose(returned, expected.tanh() if colour else expected, atol=1e-6)
    if kind.image is None:
        expected = linear("state_encoder", states)
    else:
        x, padding = states[0], 2 if environment == "memory_maze" else 0
        for number, stride in ((0, 4), (2, 2), (4, 1)):
            weight, bias = theirs[f"state_encoder.{number}.weight"], theirs[f"state_encoder.{number}.bias"]
            x = F.conv2d(x, weight, bias, stride, padding).relu()
        expected = linear("state_encoder.7", x.flatten(1))[None]
        expected = expected if environment == "minigrid_memory" else expected.tanh()
    assert torch.allclose(observed, expected, atol=1e-6)
    if kind.continuous:
        expected = linear("action_embeddings", actions)
    else:
        table = theirs["action_embeddings.0.weight"]
        assert len(table) == (4 if colour else 5)
        expected = table[actions] if environment in ("minigrid_memory", "popgym") else table[actions].tanh()
    assert torch.allclose(acted, expected, atol=1e-6)


def test_an_image_model_acts_by_reading_its_segment_again():
    config = upstream.config_from_upstream(SMALL | {"env_name": "vizdoom"}, segment_length=2)
    actor = RATE(config).actor(2)
    assert actor.backend == "segments"
    actor.reset(1.0)
    for _ in range(3):
        assert actor.act(torch.randint(256, (2, 3, 64, 112), dtype=torch.uint8)).shape == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clamp_len": 5}, "clamp_len must be -1 here, got 5"),
        ({"same_length": True}, "same_length must be False here, got True"),
        ({"ext_len": 3}, "ext_len must be 0 here, got 3"),
        ({"mem_at_end": False}, "mem_at_end must be True here, got False"),
        ({"use_stable_version": True}, "use_stable_version must be False here, got True"),
        ({"use_gate": True}, "use_stable_version must be True here, got False"),
        ({"mrv_act": "elu"}, "mrv_act must be one of relu, leaky_relu, tanh, no_act, got 'elu'"),
        ({"env_name": "chess"}, r"env_name must be one of .*, got 'chess'"),
        ({"env_name": "popgym-PositionOnlyPendulumEasy"}, "env_name must be none of POPGym's pendulums"),
        (
            {"use_gate": True, "use_stable_version": True, "pre_lnorm": True, "skip_dec_ffn": True},
            "skip_dec_ffn must be False with use_gate",
        ),
    ],
)
def test_settings_that_are_not_reproduced_are_named(change, message):
    base = SMALL | {"env_name": "tmaze", "mem_at_end": True, "use_stable_version": False}
    with pytest.raises(ValueError, match=message):
        upstream.config_from_upstream(base | change)
    arguments = base | change
    with pytest.raises(ValueError, match=message):
        upstream.RATE(**arguments)


def test_an_argument_that_is_missing_is_named():
    with pytest.raises(ValueError, match="config must hold 'd_head'"):
        upstream.config_from_upstream({k: v for k, v in SMALL.items() if k != "d_head"})


PUBLISHED = {"block": "published", "shift": "transformer_xl"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no published model has these settings: block must be 'published', got 'pre_norm'"),
        ({"block": "published"}, "shift must be 'transformer_xl', got 'signed'"),
        (PUBLISHED | {"return_scale": 5.0}, "return_scale must be 1.0, got 5.0"),
        (PUBLISHED | {"normalize_observations": True}, "normalize_observations must be False, got True"),
        (
            PUBLISHED | {"observation": "discrete", "observation_shape": (), "num_observations": 9},
            "observation must be 'vector', got 'discrete'",
        ),
    ],
)
def test_a_model_that_no_published_one_can_be_is_named(settings, message):
    model = helpers.model(dtype=torch.float32, **settings)
    with pytest.raises(ValueError, match=message):
        upstream.to_upstream(model)


def test_the_environment_of_a_model_is_one_with_its_encoders():
    found = {
        upstream.config_to_upstream(helpers.config(**PUBLISHED | settings))["env_name"]
        for settings in ({}, {"action_tanh": True}, {"action": "continuous"})
    }
    assert found == {"popgym", "tmaze", "mujoco"}


def test_parameters_that_do_not_fit_are_named():
    meta, arrays = golden.load("model_rate")
    parameters = {k.removeprefix("state_dict/"): v for k, v in arrays.items() if k.startswith("state_dict/")}
    name = "layers.1.dec_attn.r_net.weight"
    missing = {k: v for k, v in parameters.items() if k != name}
    with pytest.raises(ValueError, match=f"state_dict lacks '{name}'"):
        upstream.load(missing, meta["config"])
    with pytest.raises(ValueError, match="state_dict has no place for 'other'"):
        upstream.load(parameters | {"other": torch.ones(1)}, meta["config"])
    with pytest.raises(ValueError, match=rf"{name} must be \[64, 32\], got \[3\]"):
        upstream.load(parameters | {name: torch.ones(3)}, meta["config"])
