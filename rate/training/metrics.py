"""Where a run's numbers go: metrics.csv, TensorBoard and a progress bar."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rate.persistence import write_text

COLUMNS = ("update", "loss", "accuracy", "lr", "gradient_norm", "seconds", "eval")


class Metrics:
    """Records one row per update; a resumed run drops the rows after its checkpoint.

    Args:
        folder: of the run.
        start: finished updates.
        total: updates of the whole run.
    """

    def __init__(self, folder: Path, start: int, total: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._file = self._open(folder / "metrics.csv", start)
        self._writer = csv.DictWriter(self._file, COLUMNS)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self._bar = tqdm(
            total=total, initial=start, unit="update", dynamic_ncols=True, disable=None, file=sys.stderr
        )

    @staticmethod
    def _open(path: Path, start: int) -> Any:
        kept = []
        if start and path.is_file():
            with open(path, newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["update"]) <= start]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
        write_text(path, text.getvalue())  # at once, so that a resumed run that is lost here keeps its rows
        return open(path, "a", newline="")

    def update(self, update: int, row: Mapping[str, float], evaluation: Mapping[str, float] | None) -> None:
        """Records an update's numbers, and its evaluation's where there was one."""
        text = "" if evaluation is None else " ".join(f"{k}={v:.4g}" for k, v in evaluation.items())
        self._writer.writerow({"update": update, **{k: f"{v:.8g}" for k, v in row.items()}, "eval": text})
        self._file.flush()
        for name, value in row.items():
            self._board.add_scalar(f"train/{name}", value, update)
        for name, value in (evaluation or {}).items():
            self._board.add_scalar(f"eval/{name}", value, update)
        self._bar.update(1)
        self._bar.set_postfix(loss=f"{row['loss']:.4f}", accuracy=f"{row['accuracy']:.3f}", refresh=False)

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Flushes and closes everything."""
        self._bar.close()
        self._file.close()
        self._board.close()
