"""The acting engine by itself: what it refuses, and that environments, threads and batches do not touch each other."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch

from rate_kernels.backends import BackendUnavailable
from rate_kernels.recurrence import RecurrenceShape, SegmentRecurrence, TokenInput
from rate_kernels.recurrence import native as extension
from rate_kernels.recurrence.engine import native
from rate_kernels.segment import SegmentLayout

CPU = torch.device("cpu")
needs_native = pytest.mark.skipif(native.obstacle(CPU) is not None, reason=str(native.obstacle(CPU)))
BACKENDS = [pytest.param("native", marks=needs_native), "reference"]
SHAPE = {
    "d_model": 24, "num_layers": 2, "num_heads": 2, "d_head": 10, "d_inner": 20, "num_memory": 3,
    "segment_tokens": 9, "cache_len": 11, "gate_heads": 2, "observation": "vector", "observation_size": 4,
    "action_size": 5,
}  # fmt: skip


def parameters(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(size, generator=generator) * 0.3 + (0.9 if name.endswith("norm_weight") else 0.0)
        for name, size in shape.parameter_shapes().items()
    }


def engine(batch=3, backend="reference", **settings):
    shape = RecurrenceShape(**SHAPE | settings)
    return SegmentRecurrence(shape, parameters(shape), batch, backend=backend)


def tokens(batch, seed=0, continuous=False):
    generator = torch.Generator().manual_seed(seed)
    return TokenInput(
        torch.randn(batch, generator=generator),
        torch.randn(batch, 4, generator=generator),
        torch.randn(batch, 5, generator=generator)
        if continuous
        else torch.randint(5, (batch,), generator=generator),
    )


def rows_of(tokens, rows):
    return TokenInput(tokens.returns[rows], tokens.observations[rows], tokens.actions[rows])


# --- What is computed -----------------------------------------------------------------------------


@needs_native
def test_the_rule_of_who_sees_whom_is_the_layouts():
    places = extension._extension().engine_visible_slots
    for memory, cache_len, read_cache in itertools.product((0, 2), (0, 5), (False, True)):
        shape = RecurrenceShape(
            **SHAPE
            | {"num_memory": memory, "cache_len": cache_len, "read_cache": read_cache, "gate_heads": 0}
        )
        numbers = native.numbers(shape)
        for held, cached in itertools.product((1, 8, 9), range(cache_len + 1)):
            mask = SegmentLayout(memory, True, cached, read_cache).mask(held)
            for row in range(mask.shape[0]):
                first, stop = places(numbers, cache_len + row, held, cached)
                seen = torch.zeros(mask.shape[1], dtype=torch.bool)
                seen[first - (cache_len - cached) : stop - (cache_len - cached)] = True
                assert torch.equal(seen, mask[row])


def wander(e, steps, seed=0):
    """Environments at random places: 0 to 3 tokens at a time, segments that end early, resets. Gives all outputs."""
    generator = torch.Generator().manual_seed(seed)
    batch, most = e.batch_size, e.shape.segment_tokens
    e.reset()
    results = []
    for t in range(steps):
        given = tokens(batch, 100 + t, e.shape.action == "continuous")
        count = torch.randint(4, (batch,), generator=generator)
        ends = (e.tokens + count > most) | (torch.rand(batch, generator=generator) < 0.1)
        last = torch.minimum(count, most - e.tokens)
        if ends.any():
            e.end_segment(ends, last, given)
        out = e.step(torch.where(ends, 0, count), given)
        results += [out.hidden, out.predictions]
        resets = torch.rand(batch, generator=generator) < 0.05
        e.reset(resets)
    memory = e.memory()
    kept = [] if memory is None else [memory]
    return [*results, *kept, *(layer for env in range(batch) for layer in e.cache(env))]


@needs_native
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"read_cache": True, "block": "published", "d_inner": 0},
        {"block": "published_gated", "gated": True, "gate_activation": "tanh"},
        {"gated": True, "cache_len": 40, "gate_activation": "leaky_relu", "gate_heads": 1},
        {"num_memory": 0, "gate_heads": 0, "cache_len": 0, "action": "continuous", "action_scale": 3.0},
        {"num_memory": 20, "segment_tokens": 100, "d_head": 32, "d_model": 64, "gate_heads": 0},
    ],
)
def test_native_equals_reference_wherever_environments_stand(settings):
    pairs = zip(wander(engine(4, "native", **settings), 60), wander(engine(4, **settings), 60), strict=True)
    for ours, theirs in pairs:
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@needs_native
def test_an_environment_gives_the_same_bits_whatever_is_beside_it():
    count = torch.tensor([3, 1, 2, 0, 3, 3, 2])
    together, given = engine(7, "native"), tokens(7)
    together.reset()
    outs = [together.step(torch.full((7,), 2), given), together.step(count, given)]
    together.end_segment(torch.arange(7) > 3, torch.tensor([0, 0, 0, 0, 1, 3, 0]), given)
    outs.append(together.step(torch.full((7,), 1), given))
    for env in range(7):
        row = slice(env, env + 1)
        alone, one = engine(1, "native"), rows_of(given, row)
        alone.reset()
        found = []
        for number in [1, 1, *[1] * int(count[env])]:  # one by one
            found.append(alone.step(torch.tensor([number]), one))
        assert torch.equal(found[1].hidden, outs[0].hidden[row])
        if count[env]:
            assert torch.equal(found[-1].predictions, outs[1].predictions[row])
        if env > 3:
            alone.end_segment(count=torch.tensor([[1], [3], [0]][env - 4]), tokens=one)
        assert torch.equal(alone.step(torch.tensor([1]), one).hidden, outs[2].hidden[row])
        assert all(torch.equal(a, b) for a, b in zip(alone.cache(0), together.cache(env), strict=True))


@needs_native
def test_threads_change_no_bit():
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(wander(engine(40, "native", d_model=64, num_layers=4, d_head=32), 30))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@needs_native
def test_engines_in_several_threads():
    expected = [wander(engine(3, "native"), 40, seed) for seed in range(4)]
    found: dict[int, list] = {}
    workers = [
        threading.Thread(target=lambda seed=seed: found.update({seed: wander(engine(3, "native"), 40, seed)}))
        for seed in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for seed in range(4):
        assert all(torch.equal(a, b) for a, b in zip(found[seed], expected[seed], strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_embedded_tokens(backend):
    """Tokens that the caller embeds are those that the engine would have made."""
    ours, theirs, given = engine(2, backend), engine(2, backend), tokens(2)
    p = parameters(ours.shape)
    rows = torch.stack(
        [
            given.returns[:, None] @ p["return_weight"].t() + p["return_bias"],
            given.observations @ p["observation_weight"].t() + p["observation_bias"],
            p["action_weight"][given.actions],
        ],
        dim=1,
    )
    for e in (ours, theirs):
        e.reset()
    a = ours.step(torch.tensor([3, 2]), TokenInput(embedded=rows))
    b = theirs.step(torch.tensor([3, 2]), given)
    torch.testing.assert_close(a.hidden, b.hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_environments_without_tokens_keep_every_bit(backend):
    e, given = engine(2, backend), tokens(2)
    e.reset()
    e.step(torch.tensor([3, 2]), given)
    before = e.state_bytes()
    out = e.step(torch.zeros(2, dtype=torch.int64), TokenInput())
    assert e.state_bytes() == before and not out.hidden.any() and not out.predictions.any()
    e.end_segment(torch.zeros(2, dtype=torch.bool))
    e.reset(torch.zeros(2, dtype=torch.bool))
    assert e.state_bytes() == before


# --- What is refused ------------------------------------------------------------------------------


def changed(given, **values):
    return TokenInput(
        **{name: getattr(given, name) for name in ("returns", "observations", "actions")} | values
    )


def poisoned(tensor, env, value):
    tensor = tensor.clone()
    tensor[env, ...] = value
    return tensor


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: changed(g, returns=poisoned(g.returns, 2, torch.nan)), "return of environment 2 is not finite"),
        (lambda g: changed(g, observations=poisoned(g.observations, 2, torch.inf)),
         "observation of environment 2 is not finite"),
        (lambda g: changed(g, actions=poisoned(g.actions, 1, 6)), r"action of environment 1 is not in 0 \.\. 5"),
        (lambda g: changed(g, actions=poisoned(g.actions, 1, -1)), r"action of environment 1 is not in 0 \.\. 5"),
        (lambda g: changed(g, actions=None), "action of environment 1 is missing"),
        (lambda g: TokenInput(embedded=torch.full((3, 3, 24), torch.nan)), "embedded token of environment 1 is not"),
    ],
)  # fmt: skip
def test_bad_values_name_the_environment_and_change_nothing(backend, change, message):
    e, given = engine(3, backend), tokens(3)
    e.reset()
    e.step(torch.tensor([3, 2, 0]), given)
    before = e.state_bytes()
    count = torch.tensor(
        [0, 1, 2]
    )  # the first is not concerned, the second gives an action, the third both others
    with pytest.raises(ValueError, match=message):
        e.step(count, change(given))
    with pytest.raises(ValueError, match=message):
        e.end_segment(torch.tensor([False, True, True]), count, change(given))
    assert e.state_bytes() == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_that_are_not_read_may_be_anything(backend):
    e, given = engine(2, backend), tokens(2)
    e.reset()
    wrong = TokenInput(given.returns, given.observations * torch.nan, given.actions * 0 + 99)
    e.step(torch.ones(2, dtype=torch.int64), wrong)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("use", "raised", "message"),
    [
        (lambda e, g: e.step(torch.tensor([4, 0]), g), ValueError, "count must be 0 to 3, got 4 for environment 0"),
        (lambda e, g: e.step(torch.tensor([0, -1]), g), ValueError, "count must be 0 to 3, got -1 for environment 1"),
        (lambda e, g: e.step(torch.tensor([0, 3]), g), ValueError,
         "at most 9 tokens, got 3 for environment 1, whose segment has 7"),
        (lambda e, g: e.step(torch.tensor([1]), g), ValueError, r"count must be torch.int64 \[2\] on the CPU"),
        (lambda e, g: e.end_segment(torch.ones(2)), ValueError, r"mask must be torch.bool \[2\] on the CPU"),
        (lambda e, g: e.step(torch.tensor([1, 1]), TokenInput(torch.zeros(3))), ValueError,
         r"returns must be \[2\], got \[3\]"),
        (lambda e, g: e.step(torch.tensor([1, 1]), TokenInput(torch.zeros(2).double())), TypeError,
         "returns must be torch.float32 on cpu, got torch.float64"),
        (lambda e, g: e.cache(2), IndexError, r"env must be in 0 \.\. 1, got 2"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named(backend, use, raised, message):
    e, given = engine(2, backend), tokens(2)
    e.reset()
    for count in ([0, 3], [0, 3], [0, 1]):
        e.step(torch.tensor(count), given)
    with pytest.raises(raised, match=message):
        use(e, given)


@pytest.mark.parametrize("backend", BACKENDS)
def test_environments_must_be_reset_first(backend):
    e, given = engine(2, backend), tokens(2)
    e.reset(torch.tensor([True, False]))
    e.step(torch.tensor([1, 0]), given)
    for use in (lambda: e.step(torch.tensor([1, 1]), given), lambda: e.end_segment()):
        with pytest.raises(RuntimeError, match="environment 1 must be reset before it acts"):
            use()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 25}, "d_model must be even, got 25"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"block": "post"}, "block must be one of pre_norm, published, published_gated, got 'post'"),
        ({"gate_heads": 5}, "gate_heads must divide d_model = 24, got 5"),
        ({"block": "published", "gated": True}, "gated must be False in published blocks, got True"),
        ({"observation": "embedded"}, "observation_size must be 0 for embedded observations, got 4"),
        ({"return_scale": 0.0}, "return_scale must be positive, got 0.0"),
    ],
)
def test_shapes_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RecurrenceShape(**SHAPE | settings)


def test_parameters_are_checked():
    shape = RecurrenceShape(**SHAPE)
    good = parameters(shape)
    with pytest.raises(ValueError, match=r"parameters must hold 'layers.1.qkv'"):
        SegmentRecurrence(shape, {k: v for k, v in good.items() if k != "layers.1.qkv"}, 1)
    with pytest.raises(ValueError, match=r"parameters\['memory'\] must be \[3, 24\], got \[4, 24\]"):
        SegmentRecurrence(shape, good | {"memory": torch.zeros(4, 24)}, 1)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        SegmentRecurrence(shape, good, 0)
    with pytest.raises(
        BackendUnavailable, match=r"it computes in float32, the parameters are torch\.float64"
    ):
        SegmentRecurrence(shape, {k: v.double() for k, v in good.items()}, 1, backend="native")
