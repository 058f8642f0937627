"""rate data, and rate train on every layout."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
from PIL import Image

from rate import RATE
from rate.cli import main
from rate.data import MinariEpisodes, open_source
from tests.rate.data.sources import layouts
from tests.rate.training.helpers import metrics

LENGTHS = [7, 3, 12, 5]
SMALL = shlex.split(
    "--model.segment-length 2 --model.segments 2 --model.d-model 16 --model.num-layers 1 --model.num-heads 2 "
    "--model.d-inner 16 --training.updates 4 --training.batch-size 4 --training.threads 1 --training.device cpu"
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)


def _npz(folder, shape, act):
    observe = lambda rng, length: rng.integers(0, 256, (length, *shape)).astype(np.uint8)
    return layouts.write_npz(folder, layouts.play(LENGTHS, observe, act))


def _replay(folder):
    layouts.write_chunk(folder, 0, **layouts.frames(LENGTHS, size=36))
    return folder


SETS = {
    "walks.hdf5": lambda path: layouts.write_d4rl(path, layouts.walks(LENGTHS)),
    "walks.pkl": lambda path: layouts.write_pickle(path, layouts.walks(LENGTHS)),
    "mazes.pickle": lambda path: layouts.write_pickle(path, layouts.mazes(LENGTHS)),
    "vizdoom": lambda path: _npz(path, (3, 36, 40), lambda rng, length: rng.integers(0, 5, length)),
    "mazes": lambda path: _npz(path, (40, 36, 3), lambda rng, length: np.eye(6)[rng.integers(0, 6, length)]),
    "logs": lambda path: _replay(path),
}


@pytest.mark.parametrize("name", SETS)
def test_train_on_any_layout(tmp_path, name):
    SETS[name](tmp_path / name)
    assert main(["train", "--data", name, "--run", "alone", *SMALL]) == 0
    assert main(["train", "--dataset", name, "--run", "together", *SMALL, "--training.workers", "2"]) == 0
    assert metrics(tmp_path / "alone") == metrics(tmp_path / "together")
    alone, together = (RATE.from_pretrained(tmp_path / run).state_dict() for run in ("alone", "together"))
    assert all((alone[key] == together[key]).all() for key in alone)
    source, config = open_source(name), RATE.from_pretrained(tmp_path / "alone").config
    assert config.observation == source.observation_space.kind
    assert config.action_size == (source.action_space.n or source.action_space.shape[0])
    assert all(np.isfinite(float(row["loss"])) for row in metrics(tmp_path / "alone"))


def test_train_on_a_part_with_more_actions(tmp_path):
    SETS["vizdoom"](tmp_path / "set")
    assert (
        main(["train", "--data", "set", "--run", "run", "--num-actions", "7", "--data-limit", "10", *SMALL])
        == 0
    )
    assert RATE.from_pretrained(tmp_path / "run").config.action_size == 7
    assert main(["train", "--data", "set", "--run", "other", "--num-actions", "2", *SMALL]) == 2


def test_info(tmp_path, capsys):
    SETS["walks.hdf5"](tmp_path / "walks.hdf5")
    assert main(["data", "info", "walks.hdf5", "--episode", "-1", "--rows", "2"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert not err and lines[0] == "walks.hdf5" and lines[1].startswith("layout          D4RL HDF5, 1 file, ")
    assert "episode 3: 5 steps, return" in out and lines[-1].split()[0] == "4"
    assert main(["data", "info", "walks.hdf5", "--limit", "10"]) == 0
    assert "episodes        2\n" in capsys.readouterr().out


def test_a_picture(tmp_path, capsys):
    SETS["vizdoom"](tmp_path / "vizdoom")
    assert main(["data", "info", "vizdoom", "--episode", "1", "--picture"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "drawn: vizdoom-episode-1.png, steps 0, 1, 2"
    pixels = np.asarray(Image.open("vizdoom-episode-1.png"))
    assert pixels.shape == (36 * 3, 3 * 120 + 4, 3)
    np.testing.assert_array_equal(
        pixels[1::3, 1:120:3], open_source("vizdoom")[1].observations[0].transpose(1, 2, 0)
    )
    assert main(["data", "info", "vizdoom", "--output", "first.png"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "drawn: first.png, steps 0, 1, 2, 3, 4, 5, 6"


@pytest.mark.parametrize("name", SETS)
def test_convert(tmp_path, capsys, name):
    SETS[name](tmp_path / name)
    assert main(["data", "convert", name, "demo/converted-v0"]) == 0
    assert capsys.readouterr().out == f"4 episodes in {tmp_path}/minari/demo/converted-v0\n"
    source, converted = open_source(name), MinariEpisodes("demo/converted-v0")
    assert (converted.observation_space.kind, converted.action_space) == (
        source.observation_space.kind,
        source.action_space,
    )
    for index in range(4):
        one, other = source[index], converted[index]
        layouts.assert_equal(other, one.observations, one.actions, one.rewards)
        first, second = source.recording(index), converted.recording(index)
        np.testing.assert_array_equal(first.observations, second.observations)
        assert (first.terminated, first.truncated) == (second.terminated, second.truncated)
    assert main(["data", "convert", name, "demo/converted-v0"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["data", "convert", name, "demo/converted-v0", "--limit", "16", "--overwrite"]) == 0
    assert len(MinariEpisodes("demo/converted-v0")) == 2


ERRORS = {
    "data fly": "data takes one of the commands info, convert, got 'fly'",
    "data info none.hdf5": "none.hdf5 is neither a file nor a folder, and no Minari data set 'none.hdf5'",
    "data info walks.hdf5 --episode 4": "--episode must be 0 to 3, got 4",
    "data info walks.hdf5 --episode -5": "--episode must be 0 to 3, got -5",
    "data info walks.hdf5 --rows 0": "--rows must be at least 1, got 0",
    "data info walks.hdf5 --limit -1": "--limit must not be negative, got -1",
    "data info walks.hdf5 --limit 3": "limit must be at least 7, the first episode's steps in walks.hdf5, got 3",
    "data info walks.hdf5 --num-actions 3": "walks.hdf5 holds continuous actions [2], expected discrete []",
    "data info walks.hdf5 --picture": "observations must be images to be drawn, got [7, 3] float32",
    "data info cut.hdf5": "cut.hdf5 cannot be read, it is damaged or cut short",
    "data info notes.txt": "notes.txt has no layout that is known. Minari: ",
    "data convert walks.hdf5": "name where to write: rate data convert PATH OUTPUT",
    "data convert cut.hdf5 out": "cut.hdf5 cannot be read",
    "train --data cut.hdf5": "cut.hdf5 cannot be read",
    "train --data notes.txt": "notes.txt has no layout that is known",
    "train --data walks.hdf5 --training.workers -1": "workers must be at least 0, got -1",
}  # fmt: skip


@pytest.mark.parametrize("line", ERRORS)
def test_errors_are_one_line(tmp_path, capsys, line):
    whole = SETS["walks.hdf5"](tmp_path / "walks.hdf5").read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(whole[:-500])
    (tmp_path / "notes.txt").write_text("nothing here")
    assert main(line.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"rate {line.split()[0]}: ") and err.endswith("\n")
    assert ERRORS[line] in err and len(err.splitlines()) == 1


def test_help(capsys):
    for arguments in (["data"], ["data", "--help"]):
        assert main(arguments) == 0
        assert "\n  info     layout" in capsys.readouterr().out
    for command in ("info", "convert"):
        with pytest.raises(SystemExit) as ended:
            main(["data", command, "--help"])
        assert not ended.value.code and "--num-actions" in capsys.readouterr().out
