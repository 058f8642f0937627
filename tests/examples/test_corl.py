"""The CORL example: 200 updates of each model, and only memory solves what is longer than the attention span."""

from __future__ import annotations

import re

import pytest

from tests.examples.helpers import run_example


@pytest.mark.slow
def test_memory_solves_t_maze_where_the_original_guesses() -> None:
    out = run_example("corl.py")
    (_, forgot), (before, after) = (
        tuple(map(float, pair)) for pair in re.findall(r"loss (\S+) to (\S+)", out)
    )
    success = [float(rate) for rate in re.findall(r"success (\S+) of 20", out)]
    assert after < 0.05 * before and after < 0.2 * forgot, out
    (short, *long), remembered = success[:3], success[3:]
    assert short == 1.0, out  # the hint is in the window
    assert all(0.2 <= rate <= 0.8 for rate in long), out
    assert remembered == [1.0, 1.0, 1.0], out  # one, two and three segments
