"""Every row of the attention kernels' table, compiled ahead of time: shared memory, spills, tensor cores."""

import itertools
import json

import pytest

from rate_kernels import triton_support, tune
from rate_kernels.ahead_of_time import SHARED_MEMORY
from rate_kernels.attention.triton import tuning

pytestmark = pytest.mark.skipif(triton_support.interpreted(), reason="TRITON_INTERPRET=1 compiles nothing")

ROWS = json.loads(tuning.TABLE.read_text())
TARGETS = {80: (80,), 90: (90, 100)}
"""The architectures that run an architecture's rows."""
CASES = [(row, target, {}) for row in ROWS for target in TARGETS[row["architecture"]]]
VERSIONS = [
    (row, row["architecture"], {"shift": "transformer_xl", "padded": True, "dropout_p": 0.1})
    for row in ROWS
    if row["dtype"] == "bfloat16" and row["sizes"] == {"d_head": 64, "d_pos": 64}
]
"""The other versions of the kernels, at the commonest sizes."""


def name(case):
    row, target, flags = case
    sizes = "-".join(str(size) for size in row["sizes"].values())
    kernel = row["kernel"].removeprefix("attention_")
    return f"{kernel}-{row['dtype']}-{sizes}-sm_{target}{'-published' if flags else ''}"


def real(sizes):
    """Whether sizes of the paper's models take this row (d_head 32 to 128, d_pos 64 and 128)."""
    return sizes["d_head"] <= 128


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *VERSIONS], ids=name)
def test_row(case):
    row, target, flags = case
    result = tune.compiled(row["kernel"], row["sizes"], row["dtype"], row["settings"], target, **flags)
    small_cards = target == 80 and (row["dtype"] == "bfloat16" or max(row["sizes"].values()) <= 128)
    assert result.shared <= SHARED_MEMORY[89 if small_cards else target]
    if real(row["sizes"]) and not flags:
        assert result.spills == 0
    elif result.spills:
        print(f"{name(case)} spills {result.spills} bytes per thread")
    if row["dtype"] != "float32":
        assert result.tensor_cores
        if target == 90 and row["settings"].get("block_q", 0) >= 64 <= row["settings"].get("block_k", 0):
            assert "wgmma" in result.tensor_cores and "HGMMA" in result.sass


def test_the_table_has_every_row():
    key = lambda kernel, architecture, dtype, sizes: (kernel, architecture, dtype, *sizes.items())
    found = [key(row["kernel"], row["architecture"], row["dtype"], row["sizes"]) for row in ROWS]
    expected = [
        key(kernel, architecture, dtype, sizes)
        for kernel, architecture, dtype in itertools.product(tuning.KERNELS, TARGETS, tune.DTYPES)
        for sizes in tuning.rows(kernel, dtype)
    ]
    assert sorted(found) == sorted(expected)
