"""The Hugging Face example: models saved and loaded, and only memory solves what is longer than the attention span."""

from __future__ import annotations

import re

import pytest

from tests.examples.helpers import run_example


@pytest.mark.slow
def test_memory_solves_t_maze_where_the_original_guesses() -> None:
    pytest.importorskip("transformers")
    out = run_example("huggingface.py")
    losses = [tuple(map(float, pair)) for pair in re.findall(r"loss (\S+) to (\S+)", out)]
    success = [float(rate) for rate in re.findall(r"success (\S+) of 20", out)]
    assert len(losses) == 2 and all(after < 0.1 * before for before, after in losses), out
    (short, *long), remembered = success[:3], success[3:]
    assert short == 1.0, out  # the hint is in the window
    assert all(0.1 <= rate <= 0.9 for rate in long), out  # a coin, thrown 20 times
    assert remembered == [1.0, 1.0, 1.0], out  # one, two and three segments
