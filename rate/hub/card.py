"""A model card, ``README.md`` beside a model: what it is, how to use it, and what its run's files say of it."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from rate import runs
from rate.config import RateConfig
from rate.persistence import write_text
from rate.training.options import RunOptions, TrainingOptions

LIBRARY = "rate-kernels"
PICTURES = {
    "success.png": "Success against the length of what is to be remembered",
    "curves.png": "Loss and accuracy against updates",
}
MARK = "<!-- Written by rate. Delete this line to keep what you change: the file is left alone then. -->"
_TAGS = ["reinforcement-learning", "offline-reinforcement-learning", "decision-transformer", "memory", "rate"]
_TAGS += ["arxiv:2306.09459"]
_PAPER = "[arXiv 2306.09459](https://arxiv.org/abs/2306.09459)"
_KINDS = {
    "transformer": (f"A RATE model, the Recurrent Action Transformer with Memory ({_PAPER})", "rate", "RATE"),
    "lstm": (f"BC-LSTM, the recurrent baseline of the RATE paper ({_PAPER})", "rate.lstm", "BCLSTM"),
}
_METRICS = {"success": "success_rate", "return": "mean_reward", "score": "score"}
_HOUSEKEEPING = {
    "device",
    "threads",
    "compile",
    "checkpoint_every",
    "keep_checkpoints",
    "eval_every",
    "eval_episodes",
}


def write_card(folder: Path, name: str | None = None) -> Path:
    """Writes ``README.md`` for the model in ``folder`` from its configuration and, where they are, its run's files.

    A card without the line :data:`MARK` is someone's own and stays as it is.

    Args:
        folder: of a run, or of a model alone.
        name: what ``from_pretrained`` takes; the folder's own by default.

    Raises:
        FileNotFoundError, ValueError: if the model's or the run's files are missing or not valid.
    """
    file = folder / "README.md"
    if not file.is_file() or MARK in file.read_text():
        write_text(file, card_text(RateConfig.load(folder), folder, name or str(folder)))
    return file


def card_text(config: RateConfig, run: Path | None, name: str) -> str:
    """The card's text: metadata that the Hub reads, then Markdown.

    Args:
        config: of the model.
        run: folder of the run that made it, None if it is not known.
        name: what ``from_pretrained`` takes.
    """
    options = runs.load_options(run) if run is not None and (run / "run.json").is_file() else None
    rows = _rows(run, "evaluation.csv")
    data = _data(options) or "recorded episodes"
    sections = [
        _metadata(name, data, rows),
        MARK,
        f"# {Path(name).name}",
        f"{_KINDS[config.architecture][0]}, trained offline on {data}.",
        _use(name, config, options),
        _model(config),
    ]
    if options is not None:
        sections.append(_training(options, _rows(run, "metrics.csv")))
    if rows:
        sections.append("## Results\n\n" + _table(list(rows[0]), [list(row.values()) for row in rows]))
    sections += [
        f"![{text}]({file})" for file, text in PICTURES.items() if run is not None and (run / file).is_file()
    ]
    sections.append(f"Written by {LIBRARY} {_version()} with PyTorch {torch.__version__}.")
    return "\n\n".join(sections) + "\n"


def _metadata(name: str, data: str, rows: list[dict[str, str]]) -> str:
    """The front matter; JSON's values are YAML's."""
    fields: dict[str, Any] = {
        "library_name": LIBRARY,
        "pipeline_tag": "reinforcement-learning",
        "tags": _TAGS,
    }
    results = [result for row in rows if (result := _result(data, row))]
    if results:
        fields["model-index"] = [{"name": Path(name).name, "results": results}]
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in fields.items()), "---"])


def _result(data: str, row: dict[str, str]) -> dict[str, Any] | None:
    """One row of an evaluation as the Hub reads results: a data set, and what was measured on it.

    A row names its measure, or has a column for each.
    """
    if "measure" in row:
        found = {row["measure"]: row.get("mean")}
        what = row.get("task") or data
        what += f", at {row['at']}" if row.get("at") else ""
    else:
        found = {column: row.get(column) for column in _METRICS}
        first, place = next(iter(row.items()))  # what the evaluation varied
        what = data if first in _METRICS else f"{data}, {first} {place}"
    metrics = []
    for name, text in found.items():
        value = _number(text)
        if value is not None:
            kind = _METRICS.get(name.split(",")[0], "score")
            metrics.append({"type": kind, "name": name, "value": value})
    if not metrics:
        return None
    return {
        "task": {"type": "reinforcement-learning", "name": "reinforcement learning"},
        "dataset": {"type": re.sub("[^a-z0-9]+", "-", what.lower()).strip("-"), "name": what},
        "metrics": metrics,
    }


def _data(options: RunOptions | None) -> str:
    """The data set, without the folders that lead to it, or the task that made its own."""
    if options is None or options.dataset is None:
        return "" if options is None else options.task or ""
    path = Path(options.dataset)
    return path.name if path.is_absolute() or path.exists() else options.dataset


def _use(name: str, config: RateConfig, options: RunOptions | None) -> str:
    target = _target_return(options)
    _, module, kind = _KINDS[config.architecture]
    shown = {
        "vector": f"a vector of {config.observation_shape and config.observation_shape[0]} numbers",
        "image": f"an image, uint8 `{list(config.observation_shape)}`",
        "discrete": f"one of {config.num_observations}, counted from 0",
    }[config.observation]
    acted = f"one of {config.action_size}, counted from 0"
    if config.action == "continuous":
        acted = f"{config.action_size} numbers from {-config.action_scale:g} to {config.action_scale:g}"
    return f"""## Use

```python
from {module} import {kind}  # pip install {LIBRARY}[hub]

model = {kind}.from_pretrained({json.dumps(name)})
actor = model.actor(batch_size=1)
actor.reset(target_return={target:g})
action = actor.act(observation)  # a batch of one environment, one step at a time
action = actor.act(observation, reward)  # memory is carried over
```

An observation is {shown}; an action is {acted}."""


def _target_return(options: RunOptions | None) -> float:
    """What the run asks for: its own, else its task's, else 1."""
    asked: float | None = None if options is None else options.target_return
    if asked is None and options is not None and options.task is not None:
        from rate.envs import task  # needs gymnasium, which a model alone does not

        asked = task(options.task).target_returns[0]
    return 1.0 if asked is None else asked


def _model(config: RateConfig) -> str:
    fields = dataclasses.asdict(config)
    shown = {key: fields[key] for key in fields if not key.startswith(("observation", "num_observations"))}
    return "## Model\n\n" + _table(["setting", "value"], [[key, value] for key, value in shown.items()])


def _training(options: RunOptions, metrics: list[dict[str, str]]) -> str:
    rows: list[list[Any]] = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        made_elsewhere = options.dataset is not None and value == field.default
        if field.name not in ("model", "training") and value not in (None, (), 0) and not made_elsewhere:
            rows.append([field.name, _data(options) if field.name == "dataset" else value])
    rows += [
        [field.name, getattr(options.training, field.name)]
        for field in dataclasses.fields(TrainingOptions)
        if field.name not in _HOUSEKEEPING
    ]
    text = "## Training\n\n" + _table(["setting", "value"], rows)
    if metrics:
        last = metrics[-1]
        found = [
            f"{key} {float(last[key]):.4g}"
            for key in ("loss", "accuracy")
            if _number(last.get(key)) is not None
        ]
        text += f"\n\nAfter {last['update']} updates: {', '.join(found)}."
    return text


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, tuple | list):
        run = range(value[0], value[0] + len(value)) if value and isinstance(value[0], int) else ()
        if len(value) > 2 and list(value) == list(run):
            return f"{value[0]} to {value[-1]}"
        return ", ".join(map(str, value))
    return str(value).replace("|", "\\|").replace("\n", " ")


def _rows(run: Path | None, name: str) -> list[dict[str, str]]:
    if run is None or not (run / name).is_file():
        return []
    with open(run / name, newline="") as file:
        return list(csv.DictReader(file))


def _number(text: str | None) -> float | None:
    """A finite number, or None for anything else."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _version() -> str:
    try:
        return version(LIBRARY)
    except PackageNotFoundError:
        return "(not installed)"
