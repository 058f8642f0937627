"""The published class: every golden segment, acting and training as the published scripts do, its state dict."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from rate.compat import upstream
from rate.data import tmaze_episodes
from tests import golden
from tests.rate import helpers

MODELS = ["dt", "rmt", "trxl", "rate", "rate_cache", "rate_continuous", "rate_gtrxl"]
TOLERANCE = 1e-4


def _load(name):
    meta, arrays = golden.load(f"model_{name}")
    parameters = {k.removeprefix("state_dict/"): v for k, v in arrays.items() if k.startswith("state_dict/")}
    model = upstream.RATE(**meta["config"])
    model.load_state_dict(parameters)  # strictly: the published names and no others
    return model.eval(), meta, arrays, parameters


def _memory(model, batch):
    return None if model.mem_tokens is None else model.mem_tokens.repeat(1, batch, 1)


@pytest.mark.parametrize("name", MODELS)
def test_segments(name):
    model, meta, arrays, _ = _load(name)
    k, mems = meta["context_length"], []
    mem_tokens = _memory(model, 2)
    for n in range(meta["segments"]):
        x, y, r = (arrays[key][:, n * k : (n + 1) * k] for key in ("states", "actions", "rtgs"))
        out = model(
            x, y, r, y, torch.arange(k)[None], *mems, mem_tokens=mem_tokens, masks=torch.ones(2, k, 1)
        )
        assert set(out) == {"logits", "new_mems", "mem_tokens"}
        assert golden.error(out["logits"], arrays[f"seg{n}_logits"]) < TOLERANCE
        assert (out["mem_tokens"] is None) == (f"seg{n}_mem_tokens" not in arrays)
        if out["mem_tokens"] is not None:
            mem_tokens = out["mem_tokens"].detach()
            assert mem_tokens.shape == arrays[f"seg{n}_mem_tokens"].shape
            assert golden.error(mem_tokens, arrays[f"seg{n}_mem_tokens"]) < TOLERANCE
        assert (out["new_mems"] is None) == (f"seg{n}_cache0" not in arrays)
        mems = out["new_mems"] or []
        assert len(mems) in (0, meta["config"]["n_layer"] + 1)
        for layer, cache in enumerate(mems):
            assert not cache.requires_grad and cache.shape == arrays[f"seg{n}_cache{layer}"].shape
            assert golden.error(cache, arrays[f"seg{n}_cache{layer}"]) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_gradients(name):
    model, meta, arrays, _ = _load(name)
    x, y, r = (arrays[key][:, : meta["context_length"]] for key in ("states", "actions", "rtgs"))
    logits = model(x, y, r, y, None, mem_tokens=_memory(model, 2))["logits"]
    if name == "rate_continuous":
        loss = F.mse_loss(logits, y)
    else:
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten().long())
    assert golden.error(loss, arrays["seg0_loss"]) < TOLERANCE
    loss.backward()
    # The state dict's entries are views of the parameters, so those of the gradients are found the same way.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    gradients = model.state_dict()
    theirs = {k.removeprefix("seg0_grad/"): v for k, v in arrays.items() if k.startswith("seg0_grad/")}
    for key, value in theirs.items():
        assert golden.error(gradients[key], value) < TOLERANCE, key
    rest = gradients.keys() - theirs.keys() - {"pos_emb.inv_freq"}
    assert all(not gradients[key].any() for key in rest)  # the gate's, and those of what is not used


@pytest.mark.parametrize("given", ["known", "known and one before", "all but the last"])
@pytest.mark.parametrize("name", MODELS)
def test_published_validation(name, given):
    """A rollout that reads the running segment again at every step, and carries memory when it is full."""
    model, meta, arrays, _ = _load(name)
    k, (batch, steps) = meta["context_length"], arrays["states"].shape[:2]
    mem_tokens, saved_context = new_tokens, new_context = _memory(model, batch), []
    logits = []
    for t in range(steps):
        first = t // k * k
        if t and t == first:
            mem_tokens, saved_context = new_tokens, new_context
        actions = arrays["actions"][:, first:t] if t > first else None
        if given == "known and one before" and t > first:  # the model reads the last ones
            actions = torch.cat([torch.full_like(actions[:, :1], 2), actions], dim=1)
        if given == "all but the last" and t == first and t:
            actions = arrays["actions"][:, :0]
        with torch.no_grad():
            out = model(
                arrays["states"][:, first : t + 1],
                actions,
                arrays["rtgs"][:, first : t + 1],
                None,
                torch.arange(t + 1 - first)[None],
                *saved_context,
                mem_tokens=mem_tokens,
                hidden=None,
                memory_states=None,
                pos_offset=3 * first,
            )
        logits.append(out["logits"][:, -1])
        new_tokens, new_context = out["mem_tokens"], out["new_mems"] or []
    assert golden.error(torch.stack(logits, 1), arrays["rollout_logits"]) < TOLERANCE


K, SEGMENTS, PADDING = 4, 3, -10
TMAZE = {"state_dim": 4, "act_dim": 4, "n_layer": 2, "n_head": 2, "n_head_ca": 1, "d_model": 24, "d_head": 12}
TMAZE |= {"d_inner": 24, "dropout": 0.1, "dropatt": 0.1, "mem_len": 0, "ext_len": 0, "num_mem_tokens": 3}
TMAZE |= {
    "mem_at_end": True,
    "env_name": "tmaze",
    "skip_dec_ffn": True,
    "padding_idx": PADDING,
    "max_ep_len": 20,
}
TMAZE |= {"label_smoothing": 0.0}  # the scripts hand over their whole section of settings


def _published_batches(size, seed=0):
    """Batches as the published data set gives them: states repeated and actions -10 after an episode's end."""
    episodes = tmaze_episodes(64, [2, 6, 10], seed)
    generator = torch.Generator().manual_seed(seed)
    while True:
        s = torch.zeros(size, K * SEGMENTS, 4)
        a = torch.full((size, K * SEGMENTS, 1), PADDING)
        rtg = torch.zeros(size, K * SEGMENTS, 1)
        mask = torch.zeros(size, K * SEGMENTS, 1, dtype=torch.int64)
        for row, index in enumerate(torch.randint(64, (size,), generator=generator).tolist()):
            episode = episodes[index]
            steps = len(episode.actions)
            s[row, :steps] = torch.from_numpy(episode.observations)
            s[row, steps:] = s[row, steps - 1]
            a[row, :steps, 0] = torch.from_numpy(episode.actions)
            rtg[row, :steps, 0] = torch.from_numpy(episode.returns_to_go)
            mask[row, :steps] = 1
        yield s, a, rtg, torch.arange(K * SEGMENTS).repeat(size, 1), mask


def _train_as_published(model, updates, size=8):
    """A step of the optimiser per segment, memory detached between them; returns the losses."""
    torch.nn.init.xavier_uniform_(model.r_w_bias)
    torch.nn.init.xavier_uniform_(model.r_r_bias)
    model.to(device="cpu", dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01, betas=(0.9, 0.999))
    criterion = nn.CrossEntropyLoss(ignore_index=PADDING)
    losses = []
    for s, a, rtg, timesteps, masks in _published_batches(size):
        memory = mem_tokens = None
        for part in range(SEGMENTS):
            window = slice(part * K, (part + 1) * K)
            x1, y1, r1 = s[:, window], a[:, window].to(torch.float32), rtg[:, window]
            t1, masks1 = timesteps[:, window], masks[:, window]
            if mem_tokens is not None:
                mem_tokens = mem_tokens.detach()
            elif model.mem_tokens is not None:
                mem_tokens = model.mem_tokens.repeat(1, r1.shape[0], 1)
            if memory is not None:
                res = model(x1, y1, r1, y1, t1, *memory, mem_tokens=mem_tokens, masks=masks1)
            else:
                res = model(x1, y1, r1, y1, t1, mem_tokens=mem_tokens, masks=masks1)
            memory, mem_tokens = res.get("new_mems", None), res.get("mem_tokens", None)
            if not (y1 != PADDING).any():
                continue
            loss = criterion(res["logits"].reshape(-1, 4), y1.reshape(-1).long())
            optimizer.zero_grad()
            loss.backward(retain_graph=True)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        if len(losses) >= updates:
            return losses


@pytest.mark.parametrize("change", [{}, {"mem_len": 30}])
def test_published_training(change):
    torch.manual_seed(0)
    model = upstream.RATE(**TMAZE | change)
    assert model.mem_tokens.shape == (3, 1, 24)
    assert (model.mem_tokens == model.mem_tokens[:1]).all()  # as published: all rows begin alike
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = _train_as_published(model, 200)
    assert sum(losses[-30:]) < 0.3 * sum(losses[:30])
    after = model.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    gate = {name for name in before if name.startswith("mha_mem_to_mem")}
    assert gate <= still  # detached memory leaves the gate as it was
    assert not {"r_w_bias", "mem_tokens", "head.weight"} & still


def test_memory_that_is_not_detached_trains_the_gate():
    model, meta, arrays, _ = _load("rate")
    k, mem_tokens = meta["context_length"], _memory(model, 2)
    for n in range(2):
        x, y, r = (arrays[key][:, n * k : (n + 1) * k] for key in ("states", "actions", "rtgs"))
        out = model(x, y, r, y, None, mem_tokens=mem_tokens)
        mem_tokens = out["mem_tokens"]
    out["logits"].square().sum().backward()
    assert model.rate.gate.query.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", MODELS)
def test_state_dict_is_the_published_one(name):
    model, _, _, parameters = _load(name)
    state = model.state_dict()
    assert state.keys() == parameters.keys()
    for key, value in parameters.items():
        assert torch.equal(state[key], value), key  # what is not used included
    counted = sum(value.numel() for key, value in parameters.items() if key != "pos_emb.inv_freq")
    assert sum(parameter.numel() for parameter in model.parameters()) == counted
    # Ours and the published class's own files are the same to the loader, and to rate.RATE's.
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    fresh = upstream.RATE(**_load(name)[1]["config"])
    assert not torch.equal(fresh.r_w_bias, model.r_w_bias)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in state.items())
    again = upstream.load(state, _load(name)[1]["config"])
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.rate.state_dict().items())
    # Inside another module, and as a view of the parameters.
    outer = nn.ModuleDict({"model": model})
    outer.load_state_dict({f"model.{key}": 2 * value for key, value in parameters.items()})
    assert torch.equal(state["r_w_bias"], 2 * parameters["r_w_bias"])
    assert outer.state_dict().keys() == {f"model.{key}" for key in parameters}


def test_what_does_not_fit_is_named_as_published():
    model, _, _, parameters = _load("rate_gtrxl")
    name = "layers.0.gate_mha.Wz.weight"
    missing = {key: value for key, value in parameters.items() if key != name}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match=f'Missing key.*"{name}"') as raised:
        model.load_state_dict(missing)
    assert "rate." not in str(raised.value)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"other\.weight"'):
        model.load_state_dict(parameters | {"other.weight": torch.ones(1)})
    with pytest.raises(RuntimeError, match=r"mem_tokens must be \[5, 1, 32\], got \[5, 32\]"):
        model.load_state_dict(parameters | {"mem_tokens": torch.ones(5, 32)})
    found = model.load_state_dict(missing | {"other.weight": torch.ones(1)}, strict=False)
    assert found.missing_keys == [name] and found.unexpected_keys == ["other.weight"]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "way", ["deepcopy", "pickle", "half", "bfloat16", "double", "DataParallel", "autocast"]
)
def test_it_is_a_module_like_any_other(way):
    torch.manual_seed(0)
    model = upstream.RATE(**TMAZE | {"mem_len": 9}).eval()
    s, a, rtg, _, _ = next(_published_batches(2))

    def read(network, raw=None):
        raw = raw or network
        mem_tokens, mems = raw.mem_tokens.repeat(1, 2, 1), []
        for part in range(2):
            window = slice(part * K, (part + 1) * K)
            out = network(s[:, window], a[:, window], rtg[:, window], a, None, *mems, mem_tokens=mem_tokens)
            mem_tokens, mems = out["mem_tokens"].detach(), out["new_mems"]
        return out

    expected = read(model)["logits"]
    if way == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert 0 < helpers.error(read(model)["logits"], expected) < 3e-2
    elif way == "DataParallel":
        assert torch.equal(read(nn.DataParallel(model), model)["logits"], expected)
    elif way in ("deepcopy", "pickle"):
        copied = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
        assert torch.equal(read(copied)["logits"], expected)
        copied.load_state_dict({key: torch.zeros_like(value) for key, value in model.state_dict().items()})
        assert not copied.r_w_bias.any() and model.r_w_bias.any()
        assert copied.state_dict().keys() == model.state_dict().keys()
    else:
        dtype = {"half": torch.float16, "bfloat16": torch.bfloat16, "double": torch.float64}[way]
        out = read(getattr(copy.deepcopy(model), way)())
        assert {out["logits"].dtype, out["mem_tokens"].dtype, *(m.dtype for m in out["new_mems"])} == {dtype}
        assert helpers.error(out["logits"], expected) < 3e-2


def test_export_with_any_batch_and_number_of_steps():
    torch.manual_seed(0)
    model = upstream.RATE(**TMAZE | {"mem_len": 9, "n_layer": 1}).eval()

    def inputs(batch, steps):
        s, a, rtg = (
            torch.randn(batch, steps, 4),
            torch.randint(4, (batch, steps, 1)),
            torch.ones(batch, steps, 1),
        )
        mem_tokens = model.mem_tokens.detach().repeat(1, batch, 1)
        out = model(s, a, rtg, a, None, mem_tokens=mem_tokens)
        return (s, a, rtg, a, None, *out["new_mems"]), out["mem_tokens"].detach()

    arguments, mem_tokens = inputs(3, 4)
    any_size = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    sizes = dict.fromkeys(("states", "actions", "rtgs", "target"), any_size)
    sizes |= {"timesteps": None, "mems": (any_size,) * 2, "mem_tokens": {1: Dim.DYNAMIC}}
    program = torch.export.export(model, arguments, {"mem_tokens": mem_tokens}, dynamic_shapes=sizes)
    arguments, mem_tokens = inputs(2, 6)
    expected = model(*arguments, mem_tokens=mem_tokens)["logits"]
    found = program.module()(*arguments, mem_tokens=mem_tokens)["logits"]
    assert helpers.error(found, expected) < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"states": torch.zeros(2, K, 3)}, r"states must be \[B, K, 4\], got \[2, 4, 3\]"),
        ({"states": torch.zeros(2, 0, 4)}, r"states must be \[B, K, 4\], got \[2, 0, 4\]"),
        ({"actions": torch.zeros(2, K)}, r"actions must be \[2, 'k', 1\], got \[2, 4\]"),
        ({"actions": torch.zeros(2, K - 1, 1)}, "actions must hold at least 4 steps, got 3"),
        ({"actions": None}, "actions must be given for 4 steps, got None"),
        ({"rtgs": torch.zeros(2, K)}, r"rtgs must be \[2, 4, 1\], got \[2, 4\]"),
        ({"mem_tokens": None}, r"mem_tokens must be \[3, 2, 24\], as model.mem_tokens.repeat\(1, 2, 1\) is, got None"),
        ({"mem_tokens": torch.zeros(3, 1, 24)}, r"mem_tokens must be \[3, 2, 24\], .* got \[3, 1, 24\]"),
        ({"mems": [torch.zeros(5, 2, 24)] * 2}, "mems must be 3 tensors, got 2"),
        ({"mems": [torch.zeros(5, 2, 24)] * 2 + [torch.zeros(4, 2, 24)]}, r"mems\[2\] must be \[5, 2, 24\], got \[4"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named(change, message):
    model = upstream.RATE(**TMAZE | {"mem_len": 30})
    good = {"states": torch.zeros(2, K, 4), "actions": torch.zeros(2, K, 1), "rtgs": torch.zeros(2, K, 1)}
    good |= {"mem_tokens": model.mem_tokens.repeat(1, 2, 1), "mems": []}

    def call(states, actions, rtgs, mem_tokens, mems):
        return model(states, actions, rtgs, states, None, *mems, mem_tokens=mem_tokens)

    assert call(**good)["logits"].shape == (2, K, 4)
    with pytest.raises(ValueError, match=message):
        call(**good | change)


def test_arguments_of_a_model_without_memory_are_named():
    model = upstream.RATE(**TMAZE | {"num_mem_tokens": 0})
    inputs = torch.zeros(2, K, 4), torch.zeros(2, K, 1), torch.zeros(2, K, 1), torch.zeros(1), None
    assert model.mem_tokens is None and model.attn_map is None
    with pytest.raises(ValueError, match="mem_tokens must be None"):
        model(*inputs, mem_tokens=torch.zeros(3, 2, 24))
    with pytest.raises(ValueError, match="mems must be left out where mem_len is 0, got 1 tensors"):
        model(*inputs, torch.zeros(3, 2, 24))


def test_pixels_are_taken_as_they_are():
    torch.manual_seed(0)
    model = upstream.RATE(**TMAZE | {"env_name": "minigrid_memory", "num_mem_tokens": 0}).eval()
    bytes_ = torch.randint(256, (1, 2, 3, 84, 84), dtype=torch.uint8)
    rest = torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), torch.zeros(1), None
    expected = model(bytes_.float(), *rest)["logits"]
    assert torch.equal(model(bytes_, *rest)["logits"], expected)
    assert torch.equal(model(bytes_[:, :, None], *rest)["logits"], expected)
    assert helpers.error(model(bytes_ / 255, *rest)["logits"], expected) > 1e-3
