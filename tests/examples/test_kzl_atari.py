"""The Atari example: only memory solves what is longer than the attention span."""

from __future__ import annotations

import re

import pytest

from tests.examples.helpers import run_example


@pytest.mark.slow
def test_memory_solves_t_maze_in_pictures_where_the_original_guesses() -> None:
    out = run_example("kzl_atari.py")
    losses = [tuple(map(float, pair)) for pair in re.findall(r"loss (\S+) to (\S+)", out)]
    success = [float(rate) for rate in re.findall(r"success (\S+) of 20", out)]
    assert len(losses) == 2 and all(after < 0.3 * before for before, after in losses), out
    assert 0.3 <= success[0] <= 0.7 and success[1:] == [1.0], out
