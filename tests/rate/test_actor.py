"""Acting step by step against reading whole segments, resets at any time, and returns-to-go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.rate import helpers

K, SEGMENTS = 3, 4
MODELS = {
    "memory": {},
    "cache": {"cache_len": 14, "read_cache": True},
    "published block": {"block": "published", "cache_len": 5, "gate_heads": 2},
    "no gate": {"gate_heads": 0},
    "cache only": {"num_memory": 0, "gate_heads": 0, "cache_len": 9, "gating": True},
    "neither": {"num_memory": 0, "gate_heads": 0},
    "continuous": {"action": "continuous", "action_scale": 2.0},
    "discrete": {"observation": "discrete", "observation_shape": (), "num_observations": 6},
    "image": {"observation": "image", "observation_shape": (1, 36, 36)},
}


def _spy(actor):
    """Keeps the predictions of every step, ``[n, A]`` per group, beside what is chosen from them."""
    seen, choose = [], actor._choose

    def keep(predictions):
        seen.append(predictions.clone())
        return choose(predictions)

    actor._choose = keep
    return seen


def _assert_state(actor, env, expected, tolerance=1e-10):
    state = actor._reader.state(env)
    if expected.memory is not None:
        assert helpers.error(state.memory, expected.memory) < tolerance
    assert [c.shape for c in state.cache] == [c.shape for c in expected.cache]
    for ours, theirs in zip(state.cache, expected.cache, strict=True):
        assert helpers.error(ours, theirs) < tolerance


def _inputs(model, batch, steps):
    """Observations, float32 as environments give them, and rewards."""
    whole = helpers.batch([steps] * batch, model.config)
    seen = whole.observations
    return seen.float() if seen.is_floating_point() else seen, whole.returns_to_go[..., 0].numpy()


@pytest.mark.parametrize("kind", ["numpy", "tensor"])
@pytest.mark.parametrize("name", MODELS)
def test_acting_equals_reading_whole_segments(name, kind):
    model = helpers.model(segment_length=K, **MODELS[name])
    observations, rewards = _inputs(model, 2, SEGMENTS * K)
    actor = model.actor(2)
    actor.reset(np.array([3.0, -1.0]))
    predictions, actions, asked = _spy(actor), [], []
    state = model.initial_state(2)
    for t in range(SEGMENTS * K):
        given = observations[:, t].numpy() if kind == "numpy" else observations[:, t]
        action = actor.act(given, rewards[:, t - 1] if t else None)
        assert isinstance(action, np.ndarray if kind == "numpy" else torch.Tensor)
        actions.append(torch.as_tensor(action))
        asked.append(torch.as_tensor(actor.return_to_go, dtype=torch.float32))
        if t % K or not t:
            continue
        # The first step of a segment: the one before has been read as a whole.
        last = slice(t - K, t)
        part = [torch.stack(x[last], 1) for x in (actions, asked)]
        out = model.eval()(observations[:, last], part[0], part[1][..., None], state)
        model.train()
        assert helpers.error(torch.stack(predictions[last], 1), out.predictions) < 1e-10
        state = out.state.detach()
        for env in range(2):
            _assert_state(actor, env, state.rows(torch.tensor([env])))
    assert len(predictions) == SEGMENTS * K and t > 2 * K
    first = torch.stack(actions[:K], 1)
    assert first.dtype == (torch.float32 if name == "continuous" else torch.int64)
    assert model.training and model.backend is None  # as it was


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("name", ["memory", "cache", "cache only", "continuous"])
def test_environments_reset_at_any_step_act_as_if_alone(name, mask):
    model = helpers.model(segment_length=K, **MODELS[name]).eval()
    envs, steps = 5, SEGMENTS * K
    observations, rewards = _inputs(model, envs, steps)
    rng = np.random.default_rng(0)
    resets = rng.random((steps, envs)) < 0.25
    resets[0] = True
    targets = rng.normal(size=(steps, envs))
    together, actions = model.actor(envs), []
    for t in range(steps):
        if resets[t].any():
            ids = resets[t] if mask else np.flatnonzero(resets[t])
            together.reset(targets[t][resets[t]], None if t == 0 else ids)
        actions.append(together.act(observations[:, t].numpy(), rewards[:, t - 1]))
    assert len({*together._reader.position}) > 1  # they stand at different steps of their segments
    for env in range(envs):
        alone = model.actor(1)
        for t in range(steps):
            if resets[t, env]:
                alone.reset(targets[t, env])
            action = alone.act(observations[env : env + 1, t].numpy(), rewards[env : env + 1, t - 1])
            np.testing.assert_allclose(action[0], actions[t][env], rtol=1e-6)
        assert alone.return_to_go[0] == together.return_to_go[env]
        _assert_state(together, env, alone._reader.state(0))


def test_an_episode_does_not_see_the_one_before():
    model = helpers.model(segment_length=K, cache_len=14).eval()
    observations, rewards = _inputs(model, 1, 3 * K)
    actor = model.actor(1)
    predictions = _spy(actor)
    for _ in range(2):
        actor.reset(1.0)
        for t in range(2 * K + 1):
            actor.act(observations[:, t].numpy(), rewards[:, t])
    half = len(predictions) // 2
    assert all(torch.equal(a, b) for a, b in zip(predictions[:half], predictions[half:], strict=True))


def test_the_last_action_is_part_of_the_segment_unless_the_published_order_is_asked_for():
    memories = {}
    for written in (True, False):
        model = helpers.model(segment_length=K, write_last_action=written).eval()
        observations, rewards = _inputs(model, 1, K + 1)
        for last in (0, 1):
            actor, count = model.actor(1), iter([2, 3, last, 0])
            actor._choose = lambda predictions, count=count: torch.tensor([next(count)])
            actor.reset(1.0)
            for t in range(K + 1):
                actor.act(observations[:, t].numpy(), rewards[:, t])
            memories[written, last] = actor._reader.state(0).memory
    assert not torch.equal(memories[True, 0], memories[True, 1])
    assert torch.equal(memories[False, 0], memories[False, 1])


def test_return_to_go():
    actor = helpers.model().actor(3)
    actor.reset([1.0, 2.0, 3.0])
    observation = np.zeros((3, 3), np.float32)
    actor.act(observation, np.array([100.0, np.nan, 100.0]))  # nobody has acted yet: ignored
    np.testing.assert_array_equal(actor.return_to_go, [1, 2, 3])
    actor.act(observation, np.array([0.25, 0.5, -1.0]))
    np.testing.assert_array_equal(actor.return_to_go, [0.75, 1.5, 4])
    actor.reset(9.0, env_ids=[1])
    actor.act(observation, torch.tensor([0.25, 7.0, 0.0]))
    np.testing.assert_array_equal(actor.return_to_go, [0.5, 9, 4])
    actor.act(observation)
    np.testing.assert_array_equal(actor.return_to_go, [0.5, 9, 4])
    actor.return_to_go[:] = 0
    assert actor.return_to_go[1] == 9  # what is handed out is a copy


def test_return_to_go_reaches_the_model():
    model = helpers.model().eval()
    seen = []
    for target in (0.0, 5.0):
        actor = model.actor(1)
        predictions = _spy(actor)
        actor.reset(target)
        actor.act(np.zeros((1, 3), np.float32))
        seen.append(predictions[0])
    assert not torch.equal(*seen)


def _sample(seed, temperature, steps=40):
    model = helpers.model().eval()
    actor = model.actor(4, temperature=temperature, generator=torch.Generator().manual_seed(seed))
    actor.reset(1.0)
    observations, _ = _inputs(model, 4, steps)
    return np.stack([actor.act(observations[:, t].numpy()) for t in range(steps)])


def test_sampling():
    torch.manual_seed(0)
    drawn = _sample(1, 1.0)
    torch.manual_seed(5)  # the global state plays no part
    np.testing.assert_array_equal(_sample(1, 1.0), drawn)
    assert (drawn != _sample(2, 1.0)).any()
    assert len(np.unique(_sample(1, 100.0))) == 4
    np.testing.assert_array_equal(_sample(1, 1e-6), _sample(2, 0.0))  # cold: the most likely


def test_frequencies_follow_the_temperature():
    model = helpers.model()
    actor = model.actor(1, temperature=2.0, generator=torch.Generator().manual_seed(0))
    logits = torch.tensor([[0.0, 2.0, -2.0, 1.0]]).expand(20_000, -1)
    counts = torch.bincount(actor._choose(logits), minlength=4) / 20_000
    assert (counts - (logits[0] / 2).softmax(-1)).abs().max() < 0.015


def test_a_bad_observation_names_the_environment_and_changes_nothing():
    model = helpers.model().eval()
    actor, other = model.actor(3), model.actor(3)
    observation = np.zeros((3, 3), np.float32)
    for a in (actor, other):
        a.reset(1.0)
        a.act(observation)
    for value, env in ((np.nan, 2), (np.inf, 1)):
        bad = observation.copy()
        bad[env, 0] = value
        with pytest.raises(ValueError, match=f"observation of environment {env} is not finite"):
            actor.act(bad, np.ones(3))
    with pytest.raises(ValueError, match="reward of environment 1 is not finite"):
        actor.act(observation, np.array([0, np.nan, 0]))
    np.testing.assert_array_equal(actor.return_to_go, [1, 1, 1])
    spied = [_spy(a) for a in (actor, other)]
    for a in (actor, other):
        a.act(observation, np.ones(3))
    assert torch.equal(spied[0][0], spied[1][0])


@pytest.mark.parametrize(
    ("use", "raised", "message"),
    [
        (lambda a: a.act(np.zeros((1, 3))), ValueError, r"observation must be \[2, 3\], got \[1, 3\]"),
        (lambda a: a.act(np.zeros((2, 4))), ValueError, r"observation must be \[2, 3\], got \[2, 4\]"),
        (lambda a: a.act(torch.zeros(3)), ValueError, r"observation must be \[2, 3\], got \[3\]"),
        (lambda a: a.act(np.zeros((2, 3)), np.zeros(3)), ValueError, r"reward must be \[2\], got \[3\]"),
        (lambda a: a.reset([1.0, 2.0, 3.0]), ValueError, "target_return must be one finite number or 2"),
        (lambda a: a.reset(float("nan")), ValueError, "target_return must be one finite number or 2"),
        (lambda a: a.reset([1.0, 2.0], env_ids=[0]), ValueError, "one finite number or 1"),
        (lambda a: a.reset(1.0, env_ids=[2]), IndexError, r"env_ids must be in 0 .. 1, got \[2\]"),
        (lambda a: a.reset(1.0, env_ids=[-1]), IndexError, r"env_ids must be in 0 .. 1, got \[-1\]"),
        (lambda a: a.reset(1.0, env_ids=[True]), ValueError, r"env_ids must be a mask \[2\] or indices, got \[1\]"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named(use, raised, message):
    actor = helpers.model().actor(2)
    actor.reset(1.0)
    with pytest.raises(raised, match=message):
        use(actor)


def test_acting_needs_a_reset():
    actor = helpers.model().actor(3)
    with pytest.raises(RuntimeError, match="environment 0 must be reset before it acts"):
        actor.act(np.zeros((3, 3)))
    actor.reset(1.0, env_ids=[0, 2])
    with pytest.raises(RuntimeError, match="environment 1 must be reset before it acts"):
        actor.act(np.zeros((3, 3)))


def test_making_an_actor():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        helpers.model().actor(0)
    with pytest.raises(ValueError, match="temperature must be at least 0, got -1"):
        helpers.model().actor(1, temperature=-1.0)


def test_dropout_is_off_while_acting():
    model = helpers.model(dropout=0.5).train()
    actor = model.actor(1)
    predictions = _spy(actor)
    for _ in range(2):
        actor.reset(1.0)
        actor.act(np.zeros((1, 3), np.float32))
    assert torch.equal(*predictions)
    assert model.training
