"""The Atari model against the original's equations, and what memory adds to it."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rate.compat.kzl_atari import GPT, GPTConfig, sample
from tests.rate.compat.helpers import check_module, gradients, randomise
from tests.rate.compat.originals import Parameters, heads_of, linear, norm
from tests.rate.helpers import error

ACTIONS, WIDTH, HEADS = 5, 12, 3
TRAIN_CONFIG = SimpleNamespace(learning_rate=1e-3, betas=(0.9, 0.95), weight_decay=0.1)


def config(steps: int = 4, **settings) -> GPTConfig:
    small = {"n_layer": 2, "n_head": HEADS, "n_embd": WIDTH, "max_timestep": 9}
    small |= {"model_type": "reward_conditioned", "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPTConfig(ACTIONS, 3 * steps, **(small | settings))


def build(seed: int = 0, steps: int = 4, **settings) -> GPT:
    torch.manual_seed(seed)
    model = GPT(config(steps, **settings))
    encoder = copy.deepcopy(model.state_encoder)
    randomise(model, seed)
    model.state_encoder = encoder  # its own beginnings fit the fan-in of its kernels
    return model


def window(batch: int, steps: int, seed: int = 1, first: int | None = None) -> dict[str, Tensor]:
    """What the original's loader gives: float32 frames, int64 actions, float32 returns, one timestep."""
    g = torch.Generator().manual_seed(seed)
    start = (
        torch.randint(6, (batch, 1, 1), generator=g) if first is None else torch.full((batch, 1, 1), first)
    )
    actions = torch.randint(ACTIONS, (batch, steps, 1), generator=g)
    return {
        "states": torch.rand(batch, steps, 4 * 84 * 84, generator=g),
        "actions": actions,
        "targets": actions,
        "rtgs": torch.randn(batch, steps, 1, generator=g),
        "timesteps": start,
    }


def statement(
    p: Parameters,
    states: Tensor,
    actions: Tensor | None,
    targets: Tensor | None,
    rtgs: Tensor | None,
    timesteps: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """The original's equations on its own state dict; ``rtgs=None`` is the naive model."""
    batch, steps = states.shape[:2]
    x = states.reshape(-1, 4, 84, 84).to(p["head.weight"].dtype)
    for index, stride in ((0, 4), (2, 2), (4, 1)):
        name = f"state_encoder.{index}"
        x = F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], stride=stride).clamp(min=0)
    frames = linear(p, "state_encoder.7", x.flatten(1)).tanh().view(batch, steps, -1)
    parts = [frames]
    if rtgs is not None:
        parts.insert(0, linear(p, "ret_emb.0", rtgs.to(x.dtype)).tanh())
    if actions is not None:
        taken = p["action_embeddings.0.weight"][actions[:, :, 0]].tanh()
        parts.append(taken[:, taken.shape[1] - steps :] if targets is not None else taken)
    sequence = []
    for step in range(steps):
        for kind, part in enumerate(parts):
            is_action = actions is not None and kind == len(parts) - 1
            if is_action and targets is None:
                column = part.shape[1] - steps + 1 + step
                if step < steps - 1:
                    sequence.append(part[:, column])
            else:
                sequence.append(part[:, step])
    x = torch.stack(sequence, 1)
    length = x.shape[1]
    x = x + p["pos_emb"][:, :length] + p["global_pos_emb"][0][timesteps[:, 0, 0]][:, None]
    causal = torch.ones(length, length).tril().bool()
    layers = len({name.split(".")[1] for name in p if name.startswith("blocks.")})
    for layer in range(layers):
        name = f"blocks.{layer}"
        y = norm(p, f"{name}.ln1", x)
        q, k, v = (heads_of(linear(p, f"{name}.attn.{part}", y), HEADS) for part in ("query", "key", "value"))
        scores = (q @ k.transpose(-1, -2) / k.shape[-1] ** 0.5).masked_fill(~causal, -torch.inf)
        x = x + linear(p, f"{name}.attn.proj", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        inner = linear(p, f"{name}.mlp.0", norm(p, f"{name}.ln2", x))
        x = x + linear(p, f"{name}.mlp.2", 0.5 * inner * (1 + torch.erf(inner / 2**0.5)))
    logits = norm(p, "ln_f", x) @ p["head.weight"].T
    first = 0 if rtgs is None else 1
    logits = logits[:, first :: len(parts)]
    if targets is None:
        return logits, None
    return logits, F.cross_entropy(logits.reshape(-1, ACTIONS), targets.reshape(-1))


def original(model: GPT, dtype: torch.dtype = torch.float64) -> Parameters:
    """The model's parameters as the original's, to be differentiated."""
    found = {name: value.to(dtype) for name, value in model.original_state_dict().items()}
    return {n: v if n.endswith("mask") else v.requires_grad_() for n, v in found.items()}


# --- Without memory: the original ---------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["reward_conditioned", "naive"])
@pytest.mark.parametrize("steps", [1, 2, 20, 100])
def test_outputs_and_gradients_are_the_originals(model_type: str, steps: int) -> None:
    model = build(steps=steps, model_type=model_type)
    given = window(2 if steps < 50 else 1, steps)
    logits, loss = model(**given)
    assert loss is not None
    loss.backward()
    p = original(model)
    rtgs = given["rtgs"] if model_type == "reward_conditioned" else None
    wanted, wanted_loss = statement(p, **(given | {"rtgs": rtgs}))
    assert wanted_loss is not None
    wanted_loss.backward()
    assert logits.shape == (len(given["states"]), steps, ACTIONS)
    assert error(logits, wanted) < 1e-5 and error(loss, wanted_loss) < 1e-5
    found = gradients(model, lambda holder: holder.original_state_dict())
    for name, value in p.items():
        if value.grad is not None:
            # Of the key's bias the gradient is zero but for rounding.
            assert (found[name] - value.grad).norm() < 1e-5 * value.grad.norm().clamp_min(1e-2), name


def test_calls_of_the_sampler() -> None:
    model = build().eval()
    p = original(model)
    given = window(1, 3, first=2)
    returns = torch.tensor([90, 89, 87])[None, :, None]  # int64, as in the original's loop
    for actions in (given["actions"], given["actions"][:, :2]):
        logits, loss = model(given["states"], actions, None, returns, given["timesteps"])
        wanted, _ = statement(p, given["states"], actions, None, returns, given["timesteps"])
        assert loss is None and logits.shape == (1, 3, ACTIONS) and error(logits, wanted) < 1e-5
    states = given["states"][:, :1].view(1, 1, 4, 84, 84)  # a first step, with frames in their shape
    logits, _ = model(states, None, None, returns[:, :1], given["timesteps"])
    wanted, _ = statement(p, states, None, None, returns[:, :1], given["timesteps"])
    assert logits.shape == (1, 1, ACTIONS) and error(logits, wanted) < 1e-5


def test_sample_cuts_histories_and_draws_from_the_likeliest() -> None:
    model = build()
    given = window(1, 7, first=2)
    arguments = {"rtgs": given["rtgs"], "timesteps": given["timesteps"]}
    action = sample(model, given["states"], 1, actions=given["actions"][:, :6], **arguments)
    assert not model.training and action.shape == (1, 1) and action.dtype == torch.int64
    last = [given[name][:, -4:] for name in ("states", "actions", "rtgs")]
    logits, _ = model(last[0], given["actions"][:, 2:6], None, last[2], given["timesteps"])
    likely = logits[0, -1].topk(2).indices.tolist()
    assert action.item() == likely[0]
    torch.manual_seed(0)
    drawn = [
        sample(model, given["states"], 1, 9.0, True, 2, actions=given["actions"][:, :6], **arguments).item()
        for _ in range(30)
    ]
    assert set(drawn) == set(likely)
    with pytest.raises(ValueError, match="steps must be 1, got 2"):
        sample(model, given["states"], 2, actions=given["actions"][:, :6], **arguments)


def test_state_dicts_of_the_original_load_and_are_given_back() -> None:
    model, other = build(), build(seed=5)
    theirs = model.original_state_dict()
    assert theirs["blocks.0.attn.mask"].shape == (1, 1, 13, 13) and theirs["tok_emb.weight"].shape == (5, 12)
    other.load_state_dict(theirs)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    for change, message in (
        (lambda p: p.pop("blocks.1.attn.key.weight"), "blocks.1.attn.key.weight"),
        (lambda p: p.update({"blocks.2.ln1.weight": torch.ones(12)}), "blocks.2.ln1.weight"),
        (lambda p: p.update({"head.weight": torch.ones(4, 12)}), "head.weight"),
    ):
        broken = dict(theirs)
        change(broken)
        with pytest.raises(RuntimeError, match=message):
            other.load_state_dict(broken)
    remembering = build(memory_tokens=2)
    before = remembering.memory.initial.clone()
    remembering.load_state_dict(theirs)
    assert torch.equal(remembering.head.weight, model.head.weight)
    assert torch.equal(remembering.memory.initial, before)
    with pytest.raises(ValueError, match="memory_tokens must be 0"):
        remembering.original_state_dict()


@pytest.mark.parametrize("memory_tokens", [0, 2])
def test_every_parameter_is_in_one_group_of_the_optimizer(memory_tokens: int) -> None:
    model = build(memory_tokens=memory_tokens)
    optimizer = model.configure_optimizers(TRAIN_CONFIG)
    decaying, others = (group["params"] for group in optimizer.param_groups)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert sorted(names[id(p)] for p in decaying + others) == sorted(names.values())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    for parameter in decaying:
        name = names[id(parameter)]
        assert name.endswith("weight") and parameter.dim() > 1 and "emb" not in name.replace("ret_emb", ""), (
            name
        )
    assert all(p.dim() < 2 or "emb" in names[id(p)] or "memory" in names[id(p)] for p in others)
    assert optimizer.defaults["betas"] == (0.9, 0.95)


# --- With memory --------------------------------------------------------------------------------------


def act(model: GPT, episode: dict[str, Tensor], steps: int) -> Tensor:
    """Logits of every step, from calls as the sampler makes them: histories cut to the window."""
    history = model.get_block_size() // 3
    found = []
    for t in range(steps):
        part = slice(max(0, t + 1 - history), t + 1)
        actions = episode["actions"][:, max(0, t - history) : t] if t else None
        now = torch.full((len(episode["states"]), 1, 1), min(t, model.max_timestep))
        found.append(
            model(episode["states"][:, part], actions, None, episode["rtgs"][:, part], now)[0][:, -1]
        )
    return torch.stack(found, 1)


@pytest.mark.parametrize("model_type", ["reward_conditioned", "naive"])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_acting_reads_what_one_window_over_the_episode_reads(model_type: str, length: int) -> None:
    model = build(memory_tokens=2, segment_length=length, gate_heads=2, model_type=model_type).eval()
    episode = window(2, 13, first=0)  # longer than the window of 4 and the table of 10 timesteps
    whole, _ = model(**episode)
    for _ in range(2):  # a new episode forgets the last one
        assert error(act(model, episode, 13), whole) < 1e-5


def test_windows_go_on_from_each_other() -> None:
    model = build(memory_tokens=2, segment_length=2).eval()
    episode = window(2, 7, first=0)
    whole, _ = model(**episode)
    kept = model.last_memory
    parts = []
    memory = None
    for start, stop in ((0, 4), (4, 6), (6, 7)):
        part = {name: x if name == "timesteps" else x[:, start:stop] for name, x in episode.items()}
        logits, _ = model(**(part | {"timesteps": torch.full((2, 1, 1), start)}), memory=memory)
        memory = model.last_memory
        parts.append(logits)
    assert error(torch.cat(parts, 1), whole) < 1e-5
    assert memory is not None and kept is not None and error(memory, kept) < 1e-5
    fresh, _ = model(**episode, memory=torch.full_like(memory, 9.0))
    assert torch.equal(fresh, whole)  # an episode's first window takes no memory


def test_positions_count_inside_the_segments_of_the_episode() -> None:
    model = build(memory_tokens=2, segment_length=3, max_timestep=5)
    logits, _ = model(**window(1, 2, first=5))  # the last step of one segment and the first of the next
    logits[:, 0].sum().backward(retain_graph=True)
    assert rows(model.pos_emb) == [6, 7] and rows(model.global_pos_emb) == [3]
    model.zero_grad()
    logits[:, 1].sum().backward()
    assert rows(model.pos_emb) == [0, 1, 6, 7, 8]  # the step before is remembered
    assert rows(model.global_pos_emb) == [3, 5]  # step 6 is beyond the table


def rows(table: Tensor) -> list[int]:
    """Those that have a gradient."""
    assert table.grad is not None
    return table.grad[0].abs().sum(-1).nonzero().flatten().tolist()


def test_calls_that_do_not_go_on_are_told() -> None:
    model = build(memory_tokens=2).eval()
    episode = window(1, 4, first=0)
    states, actions, rtgs = (episode[name] for name in ("states", "actions", "rtgs"))
    second = {"actions": actions[:, :1], "targets": None, "rtgs": rtgs[:, :2]}
    with pytest.raises(RuntimeError, match="go on by one step"):
        model(states[:, :2], **second, timesteps=torch.tensor([[[1]]]))
    model(states[:, :1], None, None, rtgs[:, :1], torch.tensor([[[0]]]))
    with pytest.raises(RuntimeError, match="go on by one step"):
        model(states[:, 2:], **second, timesteps=torch.tensor([[[1]]]))
    with pytest.raises(ValueError, match="timesteps must be the episode's current step, 1, got"):
        model(states[:, :2], **second, timesteps=torch.tensor([[[2]]]))
    model(states[:, :2], **second, timesteps=torch.tensor([[[1]]]))
    model.train()
    model.eval()
    with pytest.raises(RuntimeError, match="go on by one step"):
        model(states[:, :3], actions[:, :2], None, rtgs[:, :3], torch.tensor([[[2]]]))


@pytest.mark.parametrize("memory_tokens", [0, 2])
def test_two_hundred_updates_of_the_originals_loop(memory_tokens: int) -> None:
    torch.manual_seed(0)
    model = torch.nn.DataParallel(GPT(config(3, n_layer=1, memory_tokens=memory_tokens, attn_pdrop=0.1)))
    raw = model.module
    optimizer = raw.configure_optimizers(TRAIN_CONFIG)
    frames = torch.rand(12, 4 * 84 * 84)  # an episode of frames; the action is told by the frame
    told = torch.randint(ACTIONS, (12,))
    losses = []
    for _ in range(200):
        start = torch.randint(9, (4,))
        index = start[:, None] + torch.arange(3)
        x, y = frames[index], told[index][..., None]
        r, t = torch.ones(4, 3, 1), start[:, None, None]
        with torch.set_grad_enabled(True):
            _, loss = model(x, y, y, r, t)
            loss = loss.mean()
            losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10]), (losses[:10], losses[-10:])


# --- A module like any other ------------------------------------------------------------------------


@pytest.mark.parametrize("memory_tokens", [0, 2])
def test_module(memory_tokens: int) -> None:
    given = window(2, 4, first=1)

    def call(model: torch.nn.Module, dtype: torch.dtype) -> Tensor:
        typed = {n: x.to(dtype) if x.is_floating_point() else x for n, x in given.items()}
        return model(**typed)[0]

    check_module(lambda: build(memory_tokens=memory_tokens), call)
    model = build(memory_tokens=memory_tokens).eval()
    exported = torch.export.export(model, (), given, strict=False).module()
    torch.testing.assert_close(exported(**given)[0], model(**given)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"states": torch.zeros(2, 4, 3)}, r"states must be \[B, K, 28224\], got \[2, 4, 3\]"),
        ({"states": torch.zeros(2, 5, 28224)}, "block_size"),
        (
            {"actions": torch.zeros(2, 3, 1, dtype=torch.int64)},
            r"actions must be \[2, 4, 1\], got \[2, 3, 1\]",
        ),
        ({"actions": None}, "actions must be given for 4 steps"),
        ({"targets": torch.zeros(2, 4, dtype=torch.int64)}, r"targets must be \[2, 4, 1\], got \[2, 4\]"),
        ({"rtgs": None}, "rtgs must be given"),
        ({"timesteps": torch.zeros(2, 4, 1, dtype=torch.int64)}, r"timesteps must be \[2, 1, 1\]"),
        ({"timesteps": None}, "timesteps"),
        ({"timesteps": torch.full((2, 1, 1), 10)}, "timesteps must be from 0 to 9, got 10 to 10"),
        ({"memory": torch.zeros(2, 2, 12)}, "memory must be None"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Tensor | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()(**(window(2, 4) | change))


def test_bad_settings_are_named() -> None:
    for settings, message in (
        ({"model_type": "bc"}, "model_type must be one of reward_conditioned, naive, got 'bc'"),
        (
            {"memory_tokens": 1, "segment_length": 5},
            "segment_length must be at most the window's 4 steps, got 5",
        ),
        ({"n_head": 5}, "heads"),
    ):
        with pytest.raises(ValueError, match=message):
            build(**settings)
    with pytest.raises(AttributeError, match="n_layer"):
        GPT(GPTConfig(4, 12, model_type="naive", n_embd=8, max_timestep=3))
