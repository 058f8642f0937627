"""The training loop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from rate.data import SegmentBatch, SegmentWindows, sampled_batches
from rate.models import Model
from rate.recurrence import batch_loss, initial_state, read_segment, unfinished_segments
from rate.training import checkpoint
from rate.training.metrics import Metrics
from rate.training.options import TrainingOptions

Evaluate = Callable[[Model], dict[str, float]]


class Trainer:
    """Trains a model on windows of segments; every update depends on the seed and its number alone.

    Args:
        model: trained in place.
        windows: the data.
        options: see :class:`TrainingOptions`.
        folder: of the run: checkpoints, metrics and the newest ``model.safetensors`` go there.
        evaluate: called every ``eval_every`` updates and after the last.
    """

    def __init__(
        self,
        model: Model,
        windows: SegmentWindows,
        options: TrainingOptions,
        folder: Path,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.options, self.windows, self.folder, self.evaluate = options, windows, folder, evaluate
        self.device = resolve_device(options.device)
        if options.threads:
            torch.set_num_threads(options.threads)
        self.model = model.to(self.device).train()
        self.optimizer = make_optimizer(self.model, options)
        self.forward: Model = torch.compile(self.model) if options.compile else self.model  # type: ignore[assignment]
        self.finished = 0
        self.interrupted = False

    def resume(self) -> int:
        """Loads the newest checkpoint of the run, if there is one; returns the number of finished updates."""
        found = checkpoint.existing(self.folder / "checkpoints")
        if found:
            checkpoint.restore(found[-1], self.model, self.optimizer)
            self.finished = found[-1].update
        return self.finished

    def run(self) -> bool:
        """Trains to the last update; False if Ctrl-C ended it early. Either way everything is saved."""
        metrics = Metrics(self.folder, self.finished, self.options.updates)
        batches = sampled_batches(
            self.windows,
            range(self.finished, self.options.updates),
            self.options.batch_size,
            self.options.seed,
            workers=self.options.workers,
            pin_memory=self.device.type == "cuda",
        )
        try:
            with self._interruptible():
                while self.finished < self.options.updates and not self.interrupted:
                    self._one_update(batches, metrics)
            if self.interrupted:
                self._save()
        finally:
            batches.close()
            metrics.close()
        return not self.interrupted

    def _one_update(self, batches: Iterator[SegmentBatch], metrics: Metrics) -> None:
        started = time.perf_counter()
        number = self.finished
        lr = learning_rate(number, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        batch = next(batches).to(self.device)
        row = self._published(batch) if self.options.regime == "published" else self._full(batch)
        row |= {"lr": lr, "seconds": time.perf_counter() - started}
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss is {row['loss']} at update {number + 1}: try a smaller lr or clip"
            )
        self.finished = number + 1
        last = self.finished == self.options.updates
        evaluation = None
        if (
            self.evaluate
            and self.options.eval_every
            and (last or self.finished % self.options.eval_every == 0)
        ):
            evaluation = self.evaluate(self.model)
            self.model.train()
            found = "  ".join(f"{name} {value:.2f}" for name, value in evaluation.items())
            metrics.say(f"update {self.finished:6d}  loss {row['loss']:.4f}  {found}")
        metrics.update(self.finished, row, evaluation)
        if last or self.finished % self.options.checkpoint_every == 0:
            self._save()

    def _full(self, batch: SegmentBatch) -> dict[str, float]:
        """One optimiser step through the loss of all segments."""
        with self._autocast():
            loss = batch_loss(
                self.forward,
                batch,
                gradient_span=self.options.gradient_span or None,
                replay=self.options.replay,
            )
        norm = self._step(loss.loss)
        return {"loss": loss.loss.item(), "accuracy": loss.accuracy.item(), "gradient_norm": norm}

    def _published(self, batch: SegmentBatch) -> dict[str, float]:
        """The published regime: memory detached and an optimiser step at every segment."""
        state = initial_state(self.model, batch.mask.shape[0])
        total_loss = total_correct = 0.0
        norm = 0.0
        for segment in unfinished_segments(self.forward, batch):
            state = state.rows(slice(0, segment.mask.shape[0]))
            with self._autocast():
                sums = read_segment(self.forward, segment, state)
            norm = self._step(sums.loss / segment.mask.sum())
            state = sums.state.detach()
            total_loss, total_correct = total_loss + sums.loss.item(), total_correct + sums.correct.item()
        steps = float(batch.mask.sum())
        accuracy = total_correct / steps if self.model.config.action == "discrete" else math.nan
        return {"loss": total_loss / steps, "accuracy": accuracy, "gradient_norm": norm}

    def _step(self, loss: torch.Tensor) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip or math.inf)
        self.optimizer.step()
        return norm.item()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type,
            torch.bfloat16,
            enabled=self.options.precision == "bfloat16",
            cache_enabled=False,
        )

    def _save(self) -> None:
        checkpoint.save(
            self.folder / "checkpoints",
            self.finished,
            self.model,
            self.optimizer,
            self.options.keep_checkpoints,
        )
        self.model.save_pretrained(self.folder)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C lets the running update finish; a second one ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        previous = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


def make_optimizer(model: Model, options: TrainingOptions) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: no biases, norms, embeddings or memory tokens."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix=module_name, recurse=False):
            own = name.rpartition(".")[2]
            matrix = isinstance(module, nn.Linear | nn.Conv2d | nn.LSTM) and own.startswith("weight")
            (decayed if matrix else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, options.beta2))


def learning_rate(update: int, options: TrainingOptions) -> float:
    """Linear warm-up, then constant or a half cosine down to a tenth of the peak."""
    if update < options.warmup:
        return options.lr * (update + 1) / options.warmup
    if options.schedule == "constant":
        return options.lr
    progress = (update - options.warmup) / max(1, options.updates - options.warmup)
    return options.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``"auto"`` is a GPU where there is one.

    Raises:
        ValueError: if it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not available: {str(error).splitlines()[0]}") from None
    return device
