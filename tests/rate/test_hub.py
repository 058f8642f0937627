"""Sharing a model: the card, pushing and pulling with a Hub that is a folder, and what is said when it cannot be."""

from __future__ import annotations

import ast
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard, errors, hub_mixin

import rate
from rate import RATE, RateConfig, cli, runs
from rate.hub import transfer, write_card
from rate.hub.card import MARK
from rate.lstm import BCLSTM
from rate.persistence import write_text
from rate.training.options import RunOptions
from tests.rate import helpers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a test must not reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def run(tmp_path):
    """A run's folder with everything that a card is made from."""
    folder = tmp_path / "runs" / "a-run"
    runs.create(folder, RunOptions(task="tmaze", corridor=(1, 2, 3), eval_corridor=(4, 90)))
    helpers.model(dtype=torch.float32).save_pretrained(folder)
    write_text(folder / "metrics.csv", "update,loss,accuracy,eval\n1,2.5,0.25,\n2,0.125,0.96875,\n")
    write_text(folder / "evaluation.csv", "corridor,success,episodes\n4,1.0,100\n90,0.53,100\n")
    (folder / "success.png").write_bytes(b"a picture")
    return folder


class FakeHub:
    """Repositories are folders; stands in for HfApi and for downloads."""

    def __init__(self, folder):
        self.folder, self.asked = folder, []

    def __call__(self, token=None):  # HfApi(token=...)
        self.asked.append({"token": token})
        return self

    def create_repo(self, repo_id, private, exist_ok):
        self.asked.append({"create": repo_id, "private": private})
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id, folder_path, repo_type, **options):
        assert repo_type == "model"
        self.asked.append(options)
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)
        return f"https://huggingface.co/{repo_id}/commit/1"

    def download(self, repo_id, filename, **options):
        self.asked.append({"file": filename} | options)
        return str(self.folder / repo_id / filename)

    def snapshot(self, repo_id, **options):
        self.asked.append({"snapshot": repo_id} | options)
        return str(self.folder / repo_id)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(hub_mixin, "HfApi", fake)
    monkeypatch.setattr(hub_mixin, "hf_hub_download", fake.download)
    monkeypatch.setattr(transfer, "snapshot_download", fake.snapshot)
    return fake


def _same(one, other):
    assert one.config == other.config
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_the_card_says_what_the_runs_files_say(run):
    assert write_card(run) == run / "README.md"
    card = ModelCard.load(run / "README.md")
    assert card.data.library_name == "rate-kernels" and card.data.pipeline_tag == "reinforcement-learning"
    assert {"reinforcement-learning", "decision-transformer"} <= set(card.data.tags)
    assert card.data.model_name == "a-run"
    results = {(r.dataset_name, r.metric_type, r.metric_value) for r in card.data.eval_results}
    assert results == {
        ("tmaze, corridor 4", "success_rate", 1.0),
        ("tmaze, corridor 90", "success_rate", 0.53),
    }
    for said in (
        f'RATE.from_pretrained("{run}")',
        "trained offline on tmaze",
        "An observation is a vector of 3 numbers; an action is one of 4",
        "| num_memory | 2 |",
        "| corridor | 1 to 3 |",
        "| batch_size | 64 |",
        "After 2 updates: loss 0.125, accuracy 0.9688.",
        "| corridor | success | episodes |\n| --- | --- | --- |\n| 4 | 1.0 | 100 |\n| 90 | 0.53 | 100 |",
        "](success.png)",
    ):
        assert said in card.text, said
    assert "curves.png" not in card.text
    # What the card tells to do works.
    code = card.text.split("```python\n")[1].split("```")[0]
    for line in ("observation = torch.zeros(1, 3)", "reward = torch.zeros(1)"):
        code = f"{line}\n{code}"
    said = {"torch": torch}
    exec(code, said)
    assert said["action"].shape == (1,)


def test_the_card_of_a_model_alone(tmp_path):
    model = helpers.model(dtype=torch.float32, action="continuous", action_scale=2.5)
    model.save_pretrained(tmp_path)
    write_card(tmp_path, "someone/thing")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.eval_results is None
    assert 'RATE.from_pretrained("someone/thing")' in card.text
    assert "4 numbers from -2.5 to 2.5" in card.text
    assert "## Training" not in card.text and "## Results" not in card.text


def test_a_data_set_is_named_without_the_folders_that_lead_to_it(run, tmp_path):
    (run / "run.json").unlink()
    runs.create(run, RunOptions(dataset=str(tmp_path / "secret" / "walks")))
    write_card(run)
    text = (run / "README.md").read_text()
    assert "trained offline on walks" in text and "| dataset | walks |" in text and "secret" not in text
    (run / "run.json").unlink()
    runs.create(run, RunOptions(dataset="D4RL/door/human-v2"))
    write_card(run)
    assert "trained offline on D4RL/door/human-v2" in (run / "README.md").read_text()


def test_scores_that_are_no_numbers_are_left_out_of_the_metadata(run):
    write_text(run / "evaluation.csv", "corridor,success,return\n4,nan,1.5\n5,,inf\n")
    write_card(run)
    card = ModelCard.load(run / "README.md")
    assert [(r.dataset_name, r.metric_type, r.metric_value) for r in card.data.eval_results] == [
        ("tmaze, corridor 4", "mean_reward", 1.5)
    ]
    assert "| 5 |  | inf |" in card.text


def test_evaluations_that_name_their_measures(run):
    rows = ["minigrid-memory,11,success,0.75,0.6,0.9,20", 'minigrid-memory,11,"return, red",-0.5,-1,0,20']
    write_text(run / "evaluation.csv", "\n".join(["task,at,measure,mean,low,high,episodes", *rows, ""]))
    write_card(run)
    card = ModelCard.load(run / "README.md")
    assert [
        (r.dataset_name, r.metric_type, r.metric_name, r.metric_value) for r in card.data.eval_results
    ] == [
        ("minigrid-memory, at 11", "success_rate", "success", 0.75),
        ("minigrid-memory, at 11", "mean_reward", "return, red", -0.5),
    ]
    assert "| minigrid-memory | 11 | return, red | -0.5 | -1 | 0 | 20 |" in card.text


def test_a_card_is_written_anew_until_someone_makes_it_theirs(run):
    card = write_card(run)
    write_text(run / "evaluation.csv", "corridor,success,episodes\n7,0.25,100\n")
    assert "| 7 | 0.25 | 100 |" in write_card(run).read_text()
    write_text(card, card.read_text().replace(MARK, "") + "My own words.\n")
    write_text(run / "evaluation.csv", "corridor,success,episodes\n8,0.5,100\n")
    assert write_card(run).read_text().endswith("My own words.\n") and "| 8 | 0.5" not in card.read_text()


def test_pushed_and_pulled(run, hub):
    model = RATE.from_pretrained(run)
    url = model.push_to_hub("someone/thing", run=run, private=True, token="secret", commit_message="first")
    assert url == "https://huggingface.co/someone/thing/commit/1"
    assert hub.asked[:2] == [{"token": "secret"}, {"create": "someone/thing", "private": True}]
    assert hub.asked[2]["commit_message"] == "first"
    there = hub.folder / "someone" / "thing"
    assert {file.name for file in there.iterdir()} == {
        "config.json", "model.safetensors", "README.md", "success.png", "evaluation.csv"
    }  # fmt: skip
    card = ModelCard.load(there / "README.md")
    assert 'RATE.from_pretrained("someone/thing")' in card.text and str(run) not in card.text
    assert len(card.data.eval_results) == 2
    hub.asked.clear()
    pulled = RATE.from_pretrained("someone/thing", revision="v1", token="secret")
    _same(model, pulled)
    assert not pulled.training
    snapshot = hub.asked[-1]
    assert (snapshot["snapshot"], snapshot["revision"], snapshot["token"]) == (
        "someone/thing",
        "v1",
        "secret",
    )
    assert set(snapshot["allow_patterns"]) == {"config.json", "model.safetensors"}


def test_a_model_without_a_run_is_pushed(hub):
    model = helpers.model(dtype=torch.float32)
    model.push_to_hub("someone/thing")
    assert {file.name for file in (hub.folder / "someone" / "thing").iterdir()} == {
        "config.json", "model.safetensors", "README.md"
    }  # fmt: skip
    _same(model, RATE.from_pretrained("someone/thing"))


def test_the_recurrent_baseline_is_shared_as_well(hub):
    model = BCLSTM(helpers.config(architecture="lstm"))
    model.push_to_hub("someone/baseline")
    card = ModelCard.load(hub.folder / "someone" / "baseline" / "README.md")
    assert "from rate.lstm import BCLSTM" in card.text and "BC-LSTM" in card.text
    _same(model, BCLSTM.from_pretrained("someone/baseline"))
    with pytest.raises(ValueError, match="architecture must be 'transformer' for RATE, got 'lstm'"):
        RATE.from_pretrained("someone/baseline")


def test_ones_own_card_is_pushed_as_it_is(run, hub):
    write_text(run / "README.md", "My own words.\n")
    RATE.from_pretrained(run).push_to_hub("someone/thing", run=run)
    assert (hub.folder / "someone" / "thing" / "README.md").read_text() == "My own words.\n"


def test_a_folder_is_read_without_the_hub(run, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    monkeypatch.setattr(transfer, "pull", lambda *_: pytest.fail("asked the Hub"))
    _same(RATE.from_pretrained(run), RATE.from_pretrained("runs/a-run"))  # a name the Hub might have, too
    with pytest.raises(TypeError, match="from_pretrained has no option 'dtype'; known are revision, token"):
        RATE.from_pretrained(run, dtype=torch.float16)
    for missing in (run.parent / "none", str(run.parent / "none"), "none", "./a/b", "a/b/c", Path("a/b")):
        with pytest.raises(FileNotFoundError, match="no model folder at"):
            RATE.from_pretrained(missing)


def _error(kind, status=404):
    error = kind.__new__(kind)
    error.args, error.response = ("it said so\nand more",), SimpleNamespace(status_code=status)
    return error


FAILURES = [
    (
        _error(errors.RepositoryNotFoundError),
        FileNotFoundError,
        "there is no such repository, or it is private",
    ),
    (_error(errors.GatedRepoError), PermissionError, "it is gated"),
    (_error(errors.RevisionNotFoundError), FileNotFoundError, "there is no such revision"),
    (_error(errors.EntryNotFoundError), FileNotFoundError, "it holds no model of rate-kernels"),
    (_error(errors.LocalEntryNotFoundError), ConnectionError, "no connection, or offline mode"),
    (errors.OfflineModeIsEnabled("off"), ConnectionError, "no connection, or offline mode"),
    (_error(errors.HfHubHTTPError, 403), PermissionError, "it refuses; log in with a token that may"),
    (_error(errors.HfHubHTTPError, 500), ConnectionError, "it said so$"),
    (OSError("no route"), ConnectionError, "no route$"),
]


@pytest.mark.parametrize(("error", "kind", "message"), FAILURES, ids=[type(f[0]).__name__ for f in FAILURES])
def test_what_the_hub_fails_with_is_one_line(monkeypatch, hub, error, kind, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(hub_mixin, "hf_hub_download", fail)
    monkeypatch.setattr(transfer, "snapshot_download", fail)
    monkeypatch.setattr(hub, "create_repo", fail)
    read = "no model folder at someone/thing, and cannot read it from the Hugging Face Hub"
    with pytest.raises(kind, match=f"{read}: .*{message}") as raised:
        RATE.from_pretrained("someone/thing")
    assert "\n" not in str(raised.value)
    with pytest.raises(kind, match=f"cannot push to someone/thing on the Hugging Face Hub: .*{message}"):
        helpers.model(dtype=torch.float32).push_to_hub("someone/thing")


def test_offline_mode_is_said(tmp_path):
    code = "from rate import RATE; RATE.from_pretrained('someone/thing')"
    environment = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": str(Path(rate.__file__).parents[1]),
    }
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (
        "ConnectionError: no model folder at someone/thing, and cannot read it from the Hugging Face Hub: "
        in (done.stderr)
    )


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"{", "config.json is not valid"),
        ("config.json", b'{"d_model": "wide"}', "config.json is not valid: d_model must be an integer"),
        ("model.safetensors", b"nothing", "model.safetensors is not a safetensors file"),
        ("model.safetensors", None, "no model.safetensors in"),
    ],
)
def test_a_damaged_repository_is_named(hub, file, content, message):
    helpers.model(dtype=torch.float32).push_to_hub("someone/thing")
    there = hub.folder / "someone" / "thing" / file
    if content is None:
        there.unlink()
    else:
        there.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        RATE.from_pretrained("someone/thing")


def test_a_name_that_no_repository_can_have_is_named():
    with pytest.raises(ValueError, match="bad name"):
        helpers.model(dtype=torch.float32).push_to_hub("someone/bad name")


def test_without_huggingface_hub_it_says_what_to_install(monkeypatch, run):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "rate.hub.transfer")
    monkeypatch.delattr(sys.modules["rate.hub"], "transfer")
    model = RATE.from_pretrained(run)  # a folder needs none of it
    write_card(run)
    for use in (lambda: model.push_to_hub("someone/thing"), lambda: RATE.from_pretrained("someone/thing")):
        with pytest.raises(ImportError, match=r"needs huggingface_hub: pip install 'rate-kernels\[hub\]'"):
            use()


def test_importing_and_loading_leave_huggingface_hub_alone(run):
    code = (
        f"import sys, rate; rate.RATE.from_pretrained({str(run)!r}); print('huggingface_hub' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(Path(rate.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "False\n", done.stderr


def test_the_command(run, hub, capsys):
    assert cli.main(["push", str(run), "someone/thing", "--private", "--message", "hello"]) == 0
    assert capsys.readouterr().out == (
        "pushed: https://huggingface.co/someone/thing/commit/1\n"
        "load it: RATE.from_pretrained('someone/thing')\n"
    )
    assert hub.asked[1] == {"create": "someone/thing", "private": True}
    assert hub.asked[2]["commit_message"] == "hello"
    _same(RATE.from_pretrained(run), RATE.from_pretrained("someone/thing"))
    assert cli.main(["push", str(run.parent / "none"), "someone/thing"]) == 2
    assert "rate push: no run at" in capsys.readouterr().err


def test_the_config_of_another_version_is_refused_and_named(run):
    write_text(run / "config.json", RateConfig().to_json().replace("{", '{"of_tomorrow": 1,', 1))
    with pytest.raises(
        ValueError, match=f"{run}/config.json is not valid: config has unknown field 'of_tomorrow'"
    ):
        RATE.from_pretrained(run)


def test_torch_load_takes_weights_only():
    calls = []
    for file in (
        f for folder in ("rate", "rate_kernels", "bench", "examples") for f in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                calls.append(f"{file}:{node.lineno}")
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", calls[-1]
            if isinstance(node, ast.ImportFrom) and node.module == "torch":
                assert "load" not in {alias.name for alias in node.names}, f"{file}:{node.lineno}"
    assert calls
