"""metrics.csv over a run and its resumptions."""

from __future__ import annotations

from rate.training.metrics import COLUMNS, Metrics
from tests.rate.training.helpers import metrics

ROW = {"loss": 0.5, "accuracy": 0.25, "lr": 1e-3, "gradient_norm": 2.0, "seconds": 0.1}


def _record(folder, start, stop, loss):
    recorded = Metrics(folder, start, 9)
    for update in range(start + 1, stop + 1):
        recorded.update(update, ROW | {"loss": loss}, {"success": 1 / 3} if update == stop else None)
    recorded.close()


def test_rows_after_the_checkpoint_are_replaced(tmp_path):
    folder = tmp_path / "new" / "run"
    _record(folder, 0, 5, 1.0)
    _record(folder, 3, 6, 2.0)
    rows = metrics(folder)
    assert [int(row["update"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [float(row["loss"]) for row in rows] == [1.0] * 3 + [2.0] * 3
    assert [row["eval"] for row in rows] == [""] * 5 + ["success=0.3333"]
    assert (folder / "metrics.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_run_lost_while_it_resumes_keeps_its_rows(tmp_path):
    _record(tmp_path, 0, 5, 1.0)
    resumed = Metrics(tmp_path, 4, 9)
    assert [int(row["update"]) for row in metrics(tmp_path)] == [1, 2, 3, 4]  # before anything is closed
    resumed.close()


def test_a_new_run_starts_with_no_rows(tmp_path):
    _record(tmp_path, 0, 5, 1.0)
    _record(tmp_path, 0, 2, 3.0)
    assert [float(row["loss"]) for row in metrics(tmp_path)] == [3.0, 3.0]
