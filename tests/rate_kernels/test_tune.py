"""Launch configurations: finding a row, choosing one without a device, writing it."""

import json

import pytest

from rate_kernels import configurations, triton_support, tune

ROWS = [
    {"kernel": "k", "architecture": a, "dtype": t, "sizes": s, "settings": {"n": n}, "measured": None}
    for n, (a, t, s) in enumerate(
        [
            (80, "bfloat16", {"d": 64, "length": 128}),
            (80, "bfloat16", {"d": 64}),
            (80, "bfloat16", {"d": 256}),
            (90, "bfloat16", {"d": 64}),
            (80, "float32", {"d": 64}),
        ]
    )
]


@pytest.mark.parametrize(
    ("architecture", "dtype", "d", "length", "expected"),
    [
        (80, "bfloat16", 64, 128, 0),  # the smallest that fits
        (80, "bfloat16", 64, 129, 1),  # a row that leaves a size out takes any
        (80, "bfloat16", 65, 10, 2),
        (90, "bfloat16", 64, 10, 3),  # the newest architecture first
        (100, "bfloat16", 16, 10, 3),
        (90, "bfloat16", 65, 10, 2),  # an older one where the newer has no row large enough
        (90, "float16", 64, 10, 3),
        (80, "float64", 64, 10, 4),
    ],
)
def test_find(tmp_path, architecture, dtype, d, length, expected):
    table = tmp_path / "table.json"
    table.write_text(json.dumps(ROWS))
    found = configurations.find(table, "k", architecture, dtype, {"d": d, "length": length})
    assert found == {"n": expected}


def test_no_row_is_large_enough(tmp_path):
    table = tmp_path / "table.json"
    table.write_text(json.dumps(ROWS))
    with pytest.raises(LookupError, match=r"no configuration of k for float32 on sm_80 .*reaches {'d': 64}"):
        configurations.find(table, "k", 80, "float32", {"d": 65})


def test_write_replaces_a_row_and_keeps_the_others(tmp_path):
    table = tmp_path / "table.json"
    for row in ROWS:
        tune.write(table, row)
    tune.write(table, ROWS[1] | {"settings": {"n": 7}, "measured": "a device, 0.1 ms"})
    rows = configurations.load(table)
    assert len(rows) == len(ROWS) and list(tmp_path.iterdir()) == [table]
    assert configurations.find(table, "k", 80, "bfloat16", {"d": 64, "length": 129}) == {"n": 7}


@pytest.mark.skipif(triton_support.interpreted(), reason="TRITON_INTERPRET=1 compiles nothing")
def test_a_row_chosen_by_compiling(tmp_path, capsys):
    arguments = ["--kernels", "gate_backward_maps", "--dtypes", "bfloat16", "--architecture", "90"]
    assert tune.main([*arguments, "--folder", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "gate.json").read_text())
    assert [row["sizes"] for row in rows] == [{"d": 512}, {"d": 64}]
    assert all(row["measured"] is None and row["architecture"] == 90 for row in rows)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows[::-1]


def test_without_a_device_an_architecture_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        tune.main([])
    assert "there is no CUDA device to measure on" in capsys.readouterr().err
