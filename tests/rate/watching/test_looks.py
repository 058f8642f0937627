"""Where the write tokens look: the shares are those of the attention that really wrote the memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rate.envs import task
from rate.envs.associative_retrieval import AssociativeRetrieval
from rate.layers import Attention
from rate.watching import watch, written_from
from rate_kernels import memory_attention
from tests.rate import helpers


def _episode(config, steps=10, seed=0):
    batch = helpers.batch([steps], config, seed)
    return batch.observations[0, :steps], batch.actions[0, :steps], batch.returns_to_go[0, :steps]


@pytest.mark.parametrize("settings", [{}, {"cache_len": 5, "read_cache": True}, {"block": "published"},
                                      {"shift": "transformer_xl", "write_last_action": False}])  # fmt: skip
def test_shares_are_of_one_whole(settings):
    model = helpers.model(**settings)
    looks = written_from(model, *_episode(model.config))
    assert [look.first for look in looks] == [0, 3, 6]
    for index, look in enumerate(looks):
        whole = look.steps.sum(1) + look.read_memory + look.cache + look.write_memory
        assert (
            look.steps.shape == (2, 3)
            and np.allclose(whole, 1, atol=1e-6)
            and (look.peaks >= look.steps).all()
        )
        assert (look.steps > 0).all() and np.allclose(look.remembered, look.read_memory + look.cache)
        assert (look.cache > 0).all() == (bool(settings.get("cache_len")) and index > 0)
    assert model.training


def test_weights_are_those_of_the_attention(monkeypatch):
    model = helpers.model(num_layers=1)
    observations, actions, returns = (x[None, :3] for x in _episode(model.config))
    seen = {}

    def remember(module, arguments):
        seen["weights"] = module.weights(*arguments)

    (attention,) = (m for m in model.modules() if isinstance(m, Attention))
    attention.register_forward_pre_hook(remember)
    # Values that name their key make the output the weights.
    monkeypatch.setattr(
        "rate.layers.memory_attention", lambda q, k, v, *a, **k2: _named(q, k, *a, **k2, seen=seen)
    )
    model.eval()(observations, actions, returns)
    assert helpers.error(seen["weights"], seen["by output"]) < 1e-12


def _named(query, key, *arguments, seen, **settings):
    batch, keys, heads, _ = key.shape
    names = torch.eye(keys, dtype=key.dtype)[None, :, None].expand(batch, keys, heads, keys)
    out = [
        memory_attention(query, key, part, *arguments, **settings)
        for part in torch.nn.functional.pad(names, (0, -keys % key.shape[-1])).split(key.shape[-1], -1)
    ]
    seen["by output"] = torch.cat(out, -1)[..., :keys].transpose(1, 2)
    return torch.zeros_like(query)


def test_the_step_that_draws_the_eye_is_found():
    model = helpers.model(num_layers=1)
    config = model.config
    observations, actions, returns = _episode(config, steps=9)
    observations[:] = 0.0
    observations[7] = 5.0
    with torch.no_grad():
        (attention,) = (m for m in model.modules() if isinstance(m, Attention))
        attention.qkv.weight.zero_()
        attention.position.weight.zero_()
        model.content_bias.fill_(0.0)[:, 0] = 30.0  # every query asks for the first component of a key
        plain, drawn = (
            torch.nn.functional.layer_norm(model.observation_encoder(observations[i]), (config.d_model,))
            for i in (6, 7)
        )
        inner = config.num_heads * config.d_head
        attention.qkv.weight[inner : 2 * inner : config.d_head] = drawn - plain
    *_, last = written_from(model, observations, actions, returns)
    (step, share), *_ = last.most(3)
    assert step == 7 and share > 0.9


def test_an_episode_is_read_as_it_was_acted():
    model = helpers.model(dtype=torch.float32, action_size=3)
    watched = watch(model, task("associative-retrieval"), options={"length": 9}, temperature=0.0, seed=5)
    again = watch(model, task("associative-retrieval"), options={"length": 9}, temperature=0.0, seed=5)
    assert watched.actions.tolist() == again.actions.tolist() and len(watched.actions) == 9
    assert watched.frames is None and watched.success is not None and watched.returns_to_go[0] == 1
    read = [torch.from_numpy(x) for x in (watched.observations, watched.actions, watched.returns_to_go)]
    chosen, state = [], None
    for first in range(0, 9, 3):
        out = model.eval()(*(x[None, first : first + 3] for x in read), state)
        chosen += out.predictions[0].argmax(-1).tolist()
        state = out.state
    assert chosen == watched.actions.tolist()


def test_what_cannot_be_drawn_is_watched_all_the_same(monkeypatch, caplog):
    class Blind(AssociativeRetrieval):
        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

        def __init__(self, render_mode=None, **options):
            super().__init__(**options)
            self.render_mode = render_mode

        def render(self):
            raise RuntimeError("no graphics here")

    monkeypatch.setattr("rate.envs.associative_retrieval.AssociativeRetrieval", Blind)
    model = helpers.model(dtype=torch.float32, action_size=3)
    watched = watch(model, task("associative-retrieval"), options={"length": 5})
    assert watched.frames is None and len(watched.rewards) == 5
    assert "associative-retrieval is not drawn: no graphics here" in caplog.text


def test_a_model_without_memory_has_nowhere_to_look():
    model = helpers.model(num_memory=0, gate_heads=0)
    with pytest.raises(ValueError, match="num_memory 0"):
        written_from(model, *_episode(model.config))
