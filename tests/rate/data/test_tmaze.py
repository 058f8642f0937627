"""Expert T-Maze episodes, in memory and as a data set."""

from __future__ import annotations

import numpy as np
import pytest

from rate.data import MinariEpisodes, collect_tmaze, tmaze_episodes, tmaze_recordings


def test_the_expert_walks_and_turns_as_the_hint_said():
    source = tmaze_episodes(300, [3, 9], seed=1)
    hints = []
    for episode in (source[index] for index in range(len(source))):
        length = episode.length - 1
        assert length in (3, 9)
        hint = episode.observations[0, 1]
        hints.append(hint)
        assert episode.actions.tolist() == [0] * length + [1 if hint > 0 else 3]
        assert episode.rewards.tolist() == [0] * length + [1]
        assert not episode.observations[1:, 1].any()
        assert episode.observations[:, 2].tolist() == [0] * length + [1]
    assert sum(hints) == 0
    assert 100 < (source.lengths == 4).sum() < 200


def test_the_seed_decides():
    first, same, other = (tmaze_episodes(20, [3, 4, 5], seed) for seed in (0, 0, 1))
    assert all((first[i].observations == same[i].observations).all() for i in range(20))
    assert first.lengths.tolist() != other.lengths.tolist()


def test_recordings_keep_the_last_observation():
    (recording,) = tmaze_recordings(1, 5)
    assert recording.observations.shape == (7, 4)
    assert abs(recording.observations[-1, 0]) == 1
    assert (recording.terminated, recording.truncated) == (True, False)


def test_a_failing_expert_is_an_error(monkeypatch):
    import rate.envs

    monkeypatch.setattr(rate.envs.TMazeExpert, "act", lambda self, seen: np.full(len(seen), 1))
    with pytest.raises(RuntimeError, match="the expert failed 2 of 2 episodes"):
        tmaze_episodes(2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3), "num_episodes must be at least 1, got 0"),
        ((1, 0), "corridor_lengths must be integers of at least 1, got 0"),
        ((1, []), r"corridor_lengths must be integers of at least 1, got \[\]"),
        ((1, [3, 2.5]), r"corridor_lengths must be integers of at least 1, got \[3, 2.5\]"),
        ((1, 3, -1), "seed must not be negative, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tmaze_episodes(*arguments)


def test_a_collected_set_reads_back_and_gives_its_environment(tmp_path):
    folder = collect_tmaze(tmp_path / "walks", 10, [3, 6], seed=2)
    source, expected = MinariEpisodes(folder), tmaze_episodes(10, [3, 6], seed=2)
    assert source.lengths.tolist() == expected.lengths.tolist()
    assert (source.observation_space, source.action_space) == (
        expected.observation_space,
        expected.action_space,
    )
    for index in range(10):
        for name in ("observations", "actions", "rewards"):
            read, made = getattr(source[index], name), getattr(expected[index], name)
            assert read.dtype == made.dtype
            np.testing.assert_array_equal(read, made)
    environment = source.recover_environment()
    assert type(environment.unwrapped).__name__ == "TMaze"
    assert environment.unwrapped.corridor_length == 6
    observation, _ = environment.reset(seed=0)
    assert observation.shape == (4,)
