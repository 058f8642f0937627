"""Decision Transformer's and RATE's pickles: every array comes back, nothing in them is run."""

from __future__ import annotations

import collections
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rate.data import SpaceSpec
from rate.data.sources import GymPickleEpisodes, TMazePickleEpisodes
from rate.data.sources.unpickle import first_opcode, load_pickle
from tests.rate.data.sources.layouts import assert_equal, mazes, walks, write_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_decision_transformer_pickles(tmp_path, protocol):
    episodes = walks([4, 7, 1, 2])
    source = GymPickleEpisodes(write_pickle(tmp_path / "hopper-medium-v2.pkl", episodes, protocol))
    assert source.lengths.tolist() == [4, 7, 1, 2]
    assert source.observation_space == SpaceSpec("vector", (3,))
    assert source.action_space == SpaceSpec("continuous", (2,), low=-1.0, high=1.0)
    for index, episode in enumerate(episodes):
        assert_equal(source[index], episode["observations"], episode["actions"], episode["rewards"])
        assert source[index].observations.dtype == source[index].actions.dtype == np.float32
        recording = source.recording(index)
        np.testing.assert_array_equal(recording.observations[1:], episode["next_observations"])
        assert recording.terminated == episode["terminals"][-1] == (not recording.truncated)
        np.testing.assert_array_equal(source.actions_and_rewards(index)[1], episode["rewards"])


def test_dones_do_for_terminals_and_nothing_for_next_observations(tmp_path):
    episodes = walks([4, 7])
    for episode in episodes:
        episode["dones"] = episode.pop("terminals")
        del episode["next_observations"]
    source = GymPickleEpisodes(write_pickle(tmp_path / "set.pkl", episodes))
    assert [source.recording(index).terminated for index in (0, 1)] == [True, False]
    np.testing.assert_array_equal(source.recording(0).observations[-1], episodes[0]["observations"][-1])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tmaze_pickles(tmp_path, protocol):
    episodes = mazes([5, 2, 9, 30])
    source = TMazePickleEpisodes(write_pickle(tmp_path / "data_T_30.pickle", episodes, protocol))
    assert source.lengths.tolist() == [5, 2, 9, 30]
    assert source.observation_space == SpaceSpec("vector", (4,))
    assert source.action_space == SpaceSpec("discrete", (), n=4)
    for index, episode in episodes.items():
        rewards = episode["rtg"][:-1] - episode["rtg"][1:]
        assert_equal(source[index], episode["obs"][:-1], episode["action"], rewards)
        assert source.recording(index).terminated
        np.testing.assert_array_equal(source.recording(index).observations, episode["obs"])
        np.testing.assert_array_equal(source.actions_and_rewards(index)[0], episode["action"])
    assert source[0].returns_to_go.tolist() == episodes[0]["rtg"][:-1].tolist()
    assert not source[2].returns_to_go.any()  # a failed episode, whose stored rtg stays at what was wanted


SHAPES = arrays.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=3)
NUMBERS = st.sampled_from(["?", "u1", "i4", ">i8", "f2", "<f4", ">f8"])
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=3),
        st.binary(max_size=3),
        NUMBERS.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)),
        st.sampled_from([np.float32(2.5), np.int64(-3), np.bool_(True)]),
        NUMBERS.map(lambda dtype: np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype))),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.tuples(children, children),
        st.dictionaries(st.integers(), children, max_size=3),
    ),
    max_leaves=8,
)  # fmt: skip


def _same(read, written):
    if isinstance(written, np.ndarray | np.generic):
        assert read.dtype == written.dtype and read.shape == written.shape
        np.testing.assert_array_equal(read, written)
    elif isinstance(written, list | tuple):
        assert type(read) is type(written) and len(read) == len(written)
        for one, other in zip(read, written, strict=True):
            _same(one, other)
    elif isinstance(written, dict):
        assert list(read) == list(written)
        for key in written:
            _same(read[key], written[key])
    else:
        assert read == written and type(read) is type(written)


@settings(deadline=None, max_examples=60)
@given(value=VALUES, protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(tmp_path_factory, value, protocol):
    _same(load_pickle(write_pickle(tmp_path_factory.mktemp("pickle") / "value.pkl", value, protocol)), value)


def test_what_is_used_twice_is_one(tmp_path):
    shared = [np.arange(3)]
    read = load_pickle(
        write_pickle(tmp_path / "value.pkl", {"a": shared, "b": shared, "c": (shared, shared)})
    )
    assert read["a"] is read["b"] is read["c"][0] and read["a"][0].tolist() == [0, 1, 2]
    for _ in range(60):  # 2^60 lists, if each were looked at as often as it is named
        shared = [shared, shared]
    assert len(load_pickle(write_pickle(tmp_path / "deep.pkl", shared))) == 2


class _Runs:
    """Runs code when unpickled the usual way."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _old_name(path):
    """A pickle as an older numpy wrote it: modules under numpy.core."""
    path.write_bytes(path.read_bytes().replace(b"numpy._core.", b"numpy.core."))
    return path


def test_arrays_of_older_numpys_are_read(tmp_path):
    path = _old_name(write_pickle(tmp_path / "old.pkl", [np.arange(3), np.float64(2)], 2))
    assert b"numpy.core.multiarray" in path.read_bytes()
    _same(load_pickle(path), [np.arange(3), np.float64(2)])


HARM = {
    "a command": (_Runs(os.system, "touch touched"), "system"),
    "an evaluation": (_Runs(eval, "open('touched', 'w')"), "eval"),
    "a file": (_Runs(open, "touched", "w"), "open"),
    "an import": (_Runs(__import__, "antigravity"), "__import__"),
    "within an array": (np.array([_Runs(os.system, "touch touched")], dtype=object), "system"),
    "a numpy function": (_Runs(np.fromfile, "touched"), "fromfile"),
    "a class": ([collections.OrderedDict(a=1)], "collections.OrderedDict"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", HARM)
def test_pickles_that_run_code_are_refused_by_name(tmp_path, monkeypatch, case, protocol):
    monkeypatch.chdir(tmp_path)
    value, name = HARM[case]
    path = write_pickle(tmp_path / "harm.pkl", [walks([2])[0], value], protocol)
    with pytest.raises(
        ValueError, match=rf"harm.pkl asks for \S*{name}, which is not imported: a pickle can run code"
    ):
        load_pickle(path)
    assert not (tmp_path / "touched").exists()


STRANGE = {
    "objects": (np.array([None, 1], dtype=object), "holds an array of type 'O8', expected numbers"),
    "words": (np.array(["up"]), "holds an array of type 'U2', expected numbers"),
    "records": (np.zeros(2, dtype=[("a", "f4")]), "holds (records|an array of type 'V4'), expected"),
    "a type alone": (np.dtype("f4"), "holds DType, expected numpy arrays, lists, dicts and numbers"),
    "numpy's class": (np.ndarray, "holds type, expected numpy arrays"),
    "complex numbers": (np.zeros(2, complex), "holds an array of type 'c16', expected numbers"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_other_values_are_refused_by_name(tmp_path, case):
    value, message = STRANGE[case]
    with pytest.raises(ValueError, match=f"strange.pkl {message}"):
        load_pickle(write_pickle(tmp_path / "strange.pkl", [value]))


def test_wrong_descriptions_of_arrays_are_refused(tmp_path):
    class Forged:
        def __init__(self, *state):
            self.state = state

        def __reduce__(self):
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), self.state

    float32 = np.dtype("f4")
    for state in (
        (1, (4,), float32, False, b"123"),
        (1, (4,), float32, False, [1, 2, 3, 4]),
        (1, (-1, -1), float32, False, b"1234"),
        (1, (1 << 60,), float32, False, b"1234"),
        (1, (4,), "f4", False, b"1234"),
        (4,),
    ):
        with pytest.raises(ValueError, match=r"forged\.pkl"):
            load_pickle(write_pickle(tmp_path / "forged.pkl", [Forged(*state)]))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_damaged_pickles_are_named(tmp_path_factory, data):
    whole = pickle.dumps(walks([3, 2], seed=1))
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole) - 1))])
    for position in data.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=3)):
        if damaged:
            damaged[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("pickle") / "cut.pkl"
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"cut\.pkl"):
        load_pickle(path)


BAD_WALKS = {
    "a key": (lambda e: e[1].pop("rewards"), r"lacks rewards: it holds actions, next_observations, observations"),
    "lengths": (lambda e: e[1].update(actions=np.zeros((3, 2))), r"episode 1: actions holds 3 rows, expected 7"),
    "no array": (lambda e: e[1].update(rewards=[1.0] * 7), r"episode 1: rewards must be an array, got list"),
    "size": (lambda e: e[1].update(actions=np.zeros((7, 3))), r"1: actions are \[7, 3\] float64, expected \[T, 2\]"),
    "kind": (lambda e: e[1].update(actions=np.zeros((7, 2), int)), r"episode 1: actions are \[7, 2\] int64, expected"),
    "rank": (lambda e: [x.update(observations=np.zeros((4, 2, 2))) for x in e[:1]], r"observations are"),
    "terminal": (lambda e: e[1].update(terminals=np.full(7, 3)), r"terminals must be \[N\] of 0 and 1"),
    "empty": (lambda e: e[1].update({k: v[:0] for k, v in e[1].items()}), r"episode 1: has no steps, expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_WALKS)
def test_bad_episodes_are_named(tmp_path, case):
    episodes = walks([4, 7])
    spoil, message = BAD_WALKS[case]
    spoil(episodes)
    with pytest.raises((ValueError, TypeError), match=message) as raised:
        GymPickleEpisodes(write_pickle(tmp_path / "walks.pkl", episodes))
    assert str(tmp_path / "walks.pkl") in str(raised.value)


BAD_MAZES = {
    "a key": (lambda e: e[1].pop("rtg"), r"lacks rtg: it holds action, done, obs"),
    "lengths": (lambda e: e[1].update(obs=np.zeros((2, 4))), r"1: obs holds 2 rows, expected 3: one more than action"),
    "done": (lambda e: e[1].update(done=np.zeros(3, int)), r"episode 1: done holds 3 rows, expected 2 as action does"),
    "numbers": (lambda e: e.pop(1), r"must be a dict of episodes 0, 1, 2, ..., got a dict with the keys 0, 2"),
    "values": (lambda e: e.update({1: 5}), r"episode 1: must be a dict of arrays, got int"),
    "no array": (lambda e: e[1].update(action=[1, 2]), r"episode 1: action must be an array, got list"),
    "nothing": (lambda e: e.clear(), r"must hold at least one episode, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_MAZES)
def test_bad_mazes_are_named(tmp_path, case):
    episodes = mazes([5, 2, 4])
    spoil, message = BAD_MAZES[case]
    spoil(episodes)
    with pytest.raises((ValueError, TypeError), match=message) as raised:
        TMazePickleEpisodes(write_pickle(tmp_path / "mazes.pickle", episodes))
    assert str(tmp_path / "mazes.pickle") in str(raised.value)


def test_numbers_that_are_none_are_named_when_read(tmp_path):
    episodes = mazes([5, 2])
    episodes[1]["obs"][1, 2] = np.nan
    source = TMazePickleEpisodes(write_pickle(tmp_path / "mazes.pickle", episodes))
    assert source[0].length == 5
    with pytest.raises(ValueError, match=r"mazes.pickle: episode 1: obs contain NaN at step 1$"):
        source[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_pickle_makes_first(tmp_path, protocol):
    path = tmp_path / "any"
    assert first_opcode(write_pickle(path, walks([2]), protocol)) in ("LIST", "EMPTY_LIST")
    assert first_opcode(write_pickle(path, mazes([2]), protocol)) in ("DICT", "EMPTY_DICT")
    path.write_bytes(b"words, not opcodes")
    assert first_opcode(path) is None
