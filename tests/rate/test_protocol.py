"""Trials: the task's protocol is kept, and the right figures of the paper stand beside the right numbers."""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np
import pytest

from rate import RATE, RateConfig, protocol
from rate.envs import Figure, Score, task
from rate.evaluation import Evaluation
from rate.protocol import Trial, largest_divisor, report, to_csv, try_task

AAR = "associative-retrieval"


def _model():
    sizes = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_inner": 16, "segment_length": 4}
    return RATE(RateConfig(observation_shape=(3,), action_size=3, **sizes))


@pytest.mark.parametrize(
    ("episodes", "at_most", "expected"), [(100, 100, 100), (100, 16, 10), (7, 5, 1), (12, 5, 4), (3, 9, 3)]
)
def test_every_environment_plays_the_same_number(episodes, at_most, expected):
    assert largest_divisor(episodes, at_most) == expected


def test_the_tasks_own_protocol_is_the_default(monkeypatch):
    asked = []
    result = Evaluation(np.ones(12), np.full(12, 5), np.ones(12, bool), 1.0)

    def evaluate(model, env, episodes, target, **settings):
        asked.append((env.num_envs, env.length, episodes, target, settings))
        return result

    monkeypatch.setattr(protocol, "evaluate", evaluate)
    trial = try_task(_model(), task(AAR), 12)
    kept = {"seed": 1000, "temperature": 1.0, "target_per_segment": False}
    assert asked == [(12, 90, 12, 1.0, kept)] and trial.at == 90 and trial.evaluation is result
    light = dataclasses.replace(task(AAR), side_by_side=5, target_per_segment=True)
    trial = try_task(_model(), light, 12, options={"length": 7}, target_return=0.5, temperature=0.0, seed=3)
    kept = {"seed": 3, "temperature": 0.0, "target_per_segment": True}
    assert asked[1] == (4, 7, 12, 0.5, kept) and trial.at == 7 and trial.target_return == 0.5
    try_task(_model(), task(AAR), 12, num_envs=6)
    assert asked[2][0] == 6


def test_a_trial_is_played():
    trial = try_task(_model(), task(AAR), 8, options={"length": 6})
    again = try_task(_model(), task(AAR), 8, options={"length": 6})
    assert trial.evaluation.lengths.tolist() == again.evaluation.lengths.tolist() == [6] * 8
    (success,) = trial.measures()
    assert success.name == "success" and success.mean == trial.evaluation.successes.mean()
    assert 0 <= success.low < success.high <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"options": {"size": 3}}, f"{AAR} has no option 'size'"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        try_task(_model(), task(AAR), **settings)
    with pytest.raises(ValueError, match="env gives vector observations"):
        try_task(_model(), task("tmaze"), 2)


COLOURS = dataclasses.replace(
    task(AAR),
    name="two-colours",
    score=Score("return"),
    more_scores=(Score("normalised", 0, 10, "human-normalised"),),
    axis="length",
    figures=(
        Figure("RATE", 4.0, 0.5, "Table 1", at=7),
        Figure("DT", 3.0, None, "Table 1", at=7),
        Figure("RATE", 9.0, 0.5, "Table 1", at=8),
        Figure("RATE", 5.5, 0.5, "Table 2", at=7, part="red"),
    ),
)


def _trial(length=7):
    returns = np.array([1.0, 2.0, 3.0, 6.0])
    parts = {"red": returns[:2], "green": returns[2:]}
    found = Evaluation(returns, np.array([4, 5, 6, 7]), None, 2.0, parts)
    return Trial(COLOURS, {"length": length}, 10.0, 0.0, found)


def test_numbers_and_figures_of_parts_are_told_apart():
    trial = _trial()
    measures = {m.name: m for m in trial.measures()}
    assert list(measures) == ["return", "return, green", "return, red", "human-normalised"]
    assert [m.mean for m in measures.values()] == [3.0, 4.5, 1.5, 30.0]
    assert [f.value for f in trial.figures()] == [4.0, 3.0] and [f.value for f in trial.figures("red")] == [
        5.5
    ]
    lines = [" ".join(line.split()) for line in report(trial).splitlines()]
    assert lines[0] == (
        "two-colours, length 7: 4 episodes of 5.5 steps, target return 10, the likeliest actions, 11 steps/s"
    )
    assert lines[1].startswith("return 3.000 95 % of 1.")
    assert lines[2:4] == ["paper, RATE 4 ± 0.5 Table 1", "paper, DT 3 Table 1"]
    assert [line.split(" 95")[0] for line in lines[4:]] == [
        "return, green 4.500", "return, red 1.500", "paper, RATE 5.5 ± 0.5 Table 2", "human-normalised 30.000",
    ]  # fmt: skip


def test_where_the_paper_says_nothing_it_is_said():
    assert "the paper's figures are for length 7, 8" in report(_trial(length=20))
    trial = Trial(
        task(AAR),
        {"length": 7},
        1.0,
        1.0,
        dataclasses.replace(_trial().evaluation, successes=np.ones(4, bool), parts={}),
    )
    assert "the paper prints no figure for this task" in report(trial)


def test_a_row_per_number():
    rows = list(csv.DictReader(io.StringIO(to_csv([_trial(), _trial(8)]))))
    assert [row["measure"] for row in rows[:4]] == [
        "return",
        "return, green",
        "return, red",
        "human-normalised",
    ]
    assert [row["paper_rate"] for row in rows] == ["4", "", "5.5", "", "9", "", "", ""]
    first = rows[0]
    assert (first["task"], first["at"], first["mean"], first["episodes"]) == ("two-colours", "7", "3", "4")
    assert (first["steps"], first["target_return"], first["temperature"]) == ("5.5", "10", "0")


def test_figures_of_other_options_are_not_put_beside():
    minigrid = dataclasses.replace(task("minigrid-memory"), name="like-minigrid")
    result = Evaluation(np.ones(4), np.full(4, 5), np.ones(4, bool), 1.0)
    same, other = (
        Trial(minigrid, minigrid.options | {"size": 31} | changes, 0.96, 0.0, result)
        for changes in ({}, {"time_limit": 96})
    )
    assert same.figures() and not same.differs() and "paper, RATE" in report(same)
    assert not other.figures() and other.differs() == {"time_limit": 500}
    assert "the paper's figures are for time_limit 500: --options changes it" in report(other)
