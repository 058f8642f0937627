"""POPGym: encodings that lose nothing, labyrinths that leave others' random numbers alone, experts as good as known."""

from __future__ import annotations

import random

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rate.envs import make, make_vec, task, tasks
from tests.rate.envs.helpers import check_task, expert_plays, mean_return

pytest.importorskip("popgym", reason="needs rate-kernels[popgym]")
pytest.importorskip("mazelib", reason="needs rate-kernels[popgym]")

NAMES = [known.name for known in tasks("popgym")]


def test_all_of_the_packages_tasks_are_there():
    levelled = {name for name in gymnasium.registry if name.startswith("popgym-")}
    assert {f"{name}-v0" for name in NAMES} == {
        n for n in levelled if any(x in n for x in ("Easy", "Medium", "Hard"))
    }
    assert len(NAMES) == 48


@pytest.mark.parametrize("name", NAMES)
def test_they_are_environments(name):
    check_task(name)


def test_the_papers_figures_add_up_as_the_paper_says():
    sums = dict.fromkeys(("RATE", "DT", "BC-LSTM", "BC-MLP", "random", "data set"), 0.0)
    for known in tasks("popgym"):
        for figure in known.figures:
            sums[figure.model] += figure.value
    said = {"RATE": 9.5, "DT": 5.8, "BC-LSTM": 9.0, "BC-MLP": -6.8, "random": -12.2, "data set": 16.5}
    assert sums == pytest.approx(said, abs=0.06)


@pytest.mark.parametrize(
    "kind",
    ["AutoencodeEasy", "CountRecallHard", "ConcentrationEasy", "LabyrinthEscapeEasy", "RepeatFirstEasy"],
)
def test_observations_are_the_packages_own_in_another_form(kind):
    env = make(f"popgym-{kind}")
    env.action_space.seed(0)
    assert type(env.inner).__name__ == kind
    theirs = []
    encode = env._encode
    env._encode = lambda observation: theirs.append(observation) or encode(observation)
    ours = [env.reset(seed=0)[0]]
    for _ in range(12):
        ours.append(env.step(env.action_space.sample())[0])
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(env.decode(one), other)
        if isinstance(env.inner.observation_space, spaces.Discrete):
            assert one == other
        else:
            sizes = getattr(env.inner.observation_space, "nvec", [2, 4])
            assert one.sum() == len(sizes) and one.shape == (np.sum(sizes),)
    assert len({np.asarray(one).tobytes() for one in ours}) > 1


def test_a_boards_cell_is_row_times_columns_plus_column():
    env = make("popgym-BattleshipEasy")
    assert env.action_space.n == 64
    env.reset(seed=0)
    cell = int(np.flatnonzero(env.inner.board)[0])
    assert env.step(np.int64(cell))[0] == 1 and env.inner.guesses[divmod(cell, 8)] == 1
    with pytest.raises(ValueError, match=r"action must be in Discrete\(64\), got 64"):
        env.step(64)


def test_labyrinths_have_generators_of_their_own():
    def walks(vector):
        observations = [vector.reset(seed=5)[0]]
        vector.action_space.seed(1)
        for _ in range(40):
            observations.append(vector.step(vector.action_space.sample())[0])
        return np.stack(observations, 1)

    state = random.getstate(), np.random.get_state()[1].copy()
    three = walks(make_vec("popgym-LabyrinthExploreEasy", 3))
    assert random.getstate() == state[0] and (np.random.get_state()[1] == state[1]).all()
    random.seed(7)
    np.random.seed(7)
    np.testing.assert_array_equal(walks(make_vec("popgym-LabyrinthExploreEasy", 3)), three)
    assert (three[0] != three[1]).any()


# Episodes, and the mean return that an expert is known to reach (50 episodes), less three standard errors of ours.
KNOWN = {
    "AutoencodeEasy": (2, 1.0), "AutoencodeMedium": (2, 1.0), "AutoencodeHard": (2, 1.0),
    "CountRecallEasy": (2, 1.0), "CountRecallMedium": (2, 1.0), "CountRecallHard": (2, 1.0),
    "RepeatFirstEasy": (2, 1.0), "RepeatFirstMedium": (1, 1.0), "RepeatFirstHard": (1, 1.0),
    "RepeatPreviousEasy": (2, 1.0), "RepeatPreviousMedium": (2, 1.0), "RepeatPreviousHard": (2, 1.0),
    "PositionOnlyCartPoleEasy": (4, 1.0), "PositionOnlyCartPoleMedium": (2, 1.0), "PositionOnlyCartPoleHard": (2, 1.0),
    "VelocityOnlyCartpoleEasy": (4, 1.0), "VelocityOnlyCartpoleMedium": (2, 1.0), "VelocityOnlyCartpoleHard": (2, 1.0),
    "PositionOnlyPendulumEasy": (24, 0.87), "PositionOnlyPendulumMedium": (24, 0.82),
    "PositionOnlyPendulumHard": (24, 0.74),
    "NoisyPositionOnlyCartPoleEasy": (8, 0.93), "NoisyPositionOnlyCartPoleMedium": (16, 0.40),
    "NoisyPositionOnlyCartPoleHard": (24, 0.24),
    "NoisyPositionOnlyPendulumEasy": (8, 0.84), "NoisyPositionOnlyPendulumMedium": (8, 0.58),
    "NoisyPositionOnlyPendulumHard": (8, 0.50),
    "ConcentrationEasy": (8, 0.77), "ConcentrationMedium": (8, 0.77), "ConcentrationHard": (8, 0.66),
    "HigherLowerEasy": (60, 0.48), "HigherLowerMedium": (40, 0.48), "HigherLowerHard": (40, 0.48),
    "MultiarmedBanditEasy": (16, 0.50), "MultiarmedBanditMedium": (8, 0.60), "MultiarmedBanditHard": (8, 0.65),
    "MineSweeperEasy": (60, 0.47), "MineSweeperMedium": (24, 0.13), "MineSweeperHard": (8, 0.0),
    "BattleshipEasy": (16, 0.44), "BattleshipMedium": (12, 0.48), "BattleshipHard": (8, 0.49),
    "LabyrinthEscapeEasy": (12, 0.93), "LabyrinthEscapeMedium": (8, 0.87), "LabyrinthEscapeHard": (8, 0.78),
    "LabyrinthExploreEasy": (6, 0.95), "LabyrinthExploreMedium": (4, 0.91), "LabyrinthExploreHard": (2, 0.85),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_experts_play_as_well_as_is_known(name):
    episodes, expected = KNOWN[name.removeprefix("popgym-")]
    played = expert_plays(name, episodes)
    assert mean_return(played) >= expected - 1e-9
    assert max(len(one.recording.rewards) for one in played) <= task(name).max_steps


def test_experts_need_their_environments_in_this_process():
    vector = make_vec("popgym-RepeatFirstEasy", 2, processes=True)
    with pytest.raises(ValueError, match="env must hold its environments in this process"):
        task("popgym-RepeatFirstEasy").load_expert(vector)
    vector.close()
