"""The training loop: resuming, regimes, precision, schedules, and that it learns."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from rate import RATE
from rate.data import SegmentWindows, tmaze_episodes
from rate.envs import TMazeVector
from rate.evaluation import evaluate
from rate.training import ModelOptions, RunOptions, Trainer, TrainingOptions, run
from rate.training.trainer import learning_rate, make_optimizer, resolve_device
from tests.rate import helpers
from tests.rate.training.helpers import TRAINING, metrics, options, weights


def _train(folder, **changes):
    trainer = run.start(folder, options(**changes))
    assert trainer.run()
    return trainer


def test_a_run_leaves_everything(tmp_path):
    trainer = _train(tmp_path / "run")
    assert trainer.finished == 8
    rows = metrics(tmp_path / "run")
    assert [int(row["update"]) for row in rows] == list(range(1, 9))
    assert all(
        math.isfinite(float(row[name])) for row in rows for name in ("loss", "accuracy", "gradient_norm")
    )
    assert [bool(row["eval"]) for row in rows] == [False, False, False, True] * 2
    assert rows[3]["eval"].startswith("success_3=")
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    names = [p.name for p in sorted((tmp_path / "run" / "checkpoints").iterdir())]
    assert names == ["update-00000006", "update-00000008"]
    model = RATE.from_pretrained(tmp_path / "run")
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        _train(tmp_path / name, seed=seed)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b") != metrics(tmp_path / "c")


class _Lost(Exception):
    pass


@pytest.mark.parametrize("changes", [{}, {"regime": "published"}, {"schedule": "cosine", "gradient_span": 1}])
def test_a_run_that_was_lost_goes_on_bit_for_bit(tmp_path, monkeypatch, changes):
    _train(tmp_path / "whole", **changes)
    folder = tmp_path / "lost"
    trainer = run.start(folder, options(**changes))
    step, count = trainer._step, []

    def lose(loss):
        count.append(1)
        if len(metrics(folder)) == 5:
            raise _Lost
        return step(loss)

    monkeypatch.setattr(trainer, "_step", lose)
    with pytest.raises(_Lost):
        trainer.run()
    (folder / "checkpoints" / ".update-00000006.tmp").mkdir()  # as a process killed while saving leaves it
    assert len(metrics(folder)) == 5 and count
    torch.rand(7)  # the global state is another one now
    resumed = run.resume(folder)
    assert resumed.finished == 4
    assert resumed.run()
    assert weights(folder) == weights(tmp_path / "whole")
    assert metrics(folder) == metrics(tmp_path / "whole")


def test_evaluation_does_not_change_training(tmp_path):
    _train(tmp_path / "never", eval_every=0)
    trainer = run.start(tmp_path / "often", options(eval_every=1))
    trainer.evaluate = lambda model: {"training": float(model.eval().training)}
    assert trainer.run()
    assert weights(tmp_path / "often") == weights(tmp_path / "never")
    assert {row["eval"] for row in metrics(tmp_path / "often")} == {"training=0"}


def test_resuming_before_the_first_checkpoint_starts_anew(tmp_path):
    run.start(tmp_path / "lost", options())
    torch.rand(3)
    assert run.resume(tmp_path / "lost").run()
    _train(tmp_path / "whole")
    assert weights(tmp_path / "lost") == weights(tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    _train(tmp_path)
    before = weights(tmp_path), metrics(tmp_path)
    assert run.resume(tmp_path).run()
    assert (weights(tmp_path), metrics(tmp_path)) == before


def _count_steps(trainer, monkeypatch):
    steps, norms, step = [], [], trainer.optimizer.step

    def count():
        norms.append(
            math.sqrt(
                sum(float(p.grad.square().sum()) for p in trainer.model.parameters() if p.grad is not None)
            )
        )
        steps.append(trainer.finished)
        step()

    monkeypatch.setattr(trainer.optimizer, "step", count)
    return steps, norms


def test_the_published_regime_steps_at_every_segment(tmp_path, monkeypatch):
    trainer = run.start(tmp_path, options(regime="published", updates=3))
    segments = [trainer.windows.sample(update, 4, 0).num_segments(2) for update in range(3)]
    gate = [p.detach().clone() for p in trainer.model.gate.parameters()]
    steps, _ = _count_steps(trainer, monkeypatch)
    assert trainer.run()
    assert [steps.count(update) for update in range(3)] == segments and max(segments) == 2
    # No loss reaches the gate, which stays as it was made.
    assert all(torch.equal(a, b) for a, b in zip(gate, trainer.model.gate.parameters(), strict=True))


@pytest.mark.interpreter
def test_the_full_regime_steps_once_per_batch_and_trains_the_gate(tmp_path, monkeypatch):
    trainer = run.start(tmp_path, options(updates=3))
    gate = trainer.model.gate.value.weight.detach().clone()
    steps, _ = _count_steps(trainer, monkeypatch)
    assert trainer.run()
    assert steps == [0, 1, 2]
    assert not torch.equal(gate, trainer.model.gate.value.weight)


@pytest.mark.parametrize(("clip", "clipped"), [(1e-3, True), (0.0, False)])
def test_clipping(tmp_path, monkeypatch, clip, clipped):
    trainer = run.start(tmp_path, options(updates=2, clip=clip))
    _, norms = _count_steps(trainer, monkeypatch)
    assert trainer.run()
    said = [float(row["gradient_norm"]) for row in metrics(tmp_path)]
    assert min(said) > 2e-3  # before clipping
    assert norms == pytest.approx([clip] * 2 if clipped else said, rel=1e-3)


@pytest.mark.interpreter
def test_replay_gives_the_same_model(tmp_path):
    # The same numbers in another order of additions, so close and not equal.
    models = [_train(tmp_path / str(replay), replay=replay, updates=3).model for replay in (True, False)]
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("regime", ["full", "published"])
def test_bfloat16(tmp_path, regime):
    trainer = _train(tmp_path / "half", precision="bfloat16", regime=regime)
    _train(tmp_path / "single", regime=regime)
    half, single = ([float(r["loss"]) for r in metrics(tmp_path / name)] for name in ("half", "single"))
    assert half == pytest.approx(single, rel=0.05) and half != single
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trainer.model.parameters())


def test_epochs_are_counted_in_windows(tmp_path):
    trainer = run.start(tmp_path, options(epochs=3, updates=999, batch_size=6))
    assert len(trainer.windows) == 20 and trainer.options.updates == 3 * 4


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    trainer = run.start(tmp_path, options())
    with torch.no_grad():
        trainer.model.head.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan at update 1: try a smaller lr or clip"):
        trainer.run()
    assert not (tmp_path / "model.safetensors").exists()


def test_learning_rate():
    constant = TrainingOptions(lr=1.0, warmup=4, updates=12)
    assert [learning_rate(u, constant) for u in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    cosine = dataclasses.replace(constant, schedule="cosine")
    found = [learning_rate(u, cosine) for u in range(13)]
    assert found[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert found[8] == pytest.approx(0.55) and found[12] == pytest.approx(0.1)
    assert found[6] == pytest.approx(0.1 + 0.45 * (1 + math.sqrt(0.5)))
    assert all(a > b for a, b in itertools.pairwise(found[4:]))
    assert learning_rate(0, dataclasses.replace(constant, warmup=0)) == 1.0


def test_the_learning_rate_is_used(tmp_path):
    _train(tmp_path, schedule="cosine", warmup=2)
    used = [float(row["lr"]) for row in metrics(tmp_path)]
    expected = [learning_rate(u, options(schedule="cosine", warmup=2).training) for u in range(8)]
    assert used == pytest.approx(expected, rel=1e-6)


def test_only_matrices_decay():
    model = helpers.model(cache_len=3, gating=True)
    decayed, others = make_optimizer(model, dataclasses.replace(TRAINING, weight_decay=0.5)).param_groups
    assert decayed["weight_decay"] == 0.5 and others["weight_decay"] == 0.0
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    kept = {names[id(p)] for p in others["params"]}
    assert {names[id(p)] for p in decayed["params"]} | kept == set(names.values())
    assert {"memory", "content_bias", "position_bias", "action_encoder.embedding.weight"} <= kept
    assert all(names[id(p)].endswith("weight") and p.dim() > 1 for p in decayed["params"])
    assert all("embedding" in n or "norm" in n or "bias" in n or n == "memory" for n in kept)


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    for name in ("toaster", "cuda:99"):
        with pytest.raises(ValueError, match=f"device '{name}' is not available: ") as raised:
            resolve_device(name)
        assert "\n" not in str(raised.value)


def test_a_run_of_neither_task_nor_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="name a task, or --dataset"):
        run.start(tmp_path, dataclasses.replace(options(), task=None))
    with pytest.raises(ValueError, match="corridor must name at least one corridor length"):
        run.start(tmp_path, dataclasses.replace(options(), corridor=()))
    assert not list(tmp_path.iterdir())


def _learn(folder, updates, **model):
    """A corridor of 3 and segments of 3 steps: the turn is the second segment's first step."""
    sizes = {
        "segment_length": 3,
        "segments": 2,
        "d_model": 32,
        "num_layers": 2,
        "d_inner": 64,
        "dropout": 0.0,
    }
    training = TrainingOptions(
        updates=updates, batch_size=32, lr=3e-3, warmup=10, eval_every=0, device="cpu", threads=1
    )
    whole = RunOptions(model=ModelOptions(**sizes | {"num_memory": 3} | model), training=training)
    torch.manual_seed(0)
    source = tmaze_episodes(128, 3, seed=0)
    network = RATE(whole.model.config(source.observation_space, source.action_space))
    trainer = Trainer(network, SegmentWindows(source, 3, 2), training, folder)
    assert trainer.run()
    losses = [float(row["loss"]) for row in metrics(folder)[-10:]]
    maze = TMazeVector(64, corridor_length=3, balanced_goals=True)
    return sum(losses) / 10, evaluate(trainer.model, maze, 64, 1.0, seed=5).success_rate


def test_it_learns_what_needs_the_memory(tmp_path):
    # Without memory nothing in the second segment tells up from down: log 2 for one of the four steps.
    chance = math.log(2) / 4
    loss, success = _learn(tmp_path / "memory", 120)
    assert loss < chance / 5 and success == 1.0
    loss, success = _learn(tmp_path / "none", 120, num_memory=0)
    assert chance * 0.95 < loss < chance * 1.3 and success < 0.8
