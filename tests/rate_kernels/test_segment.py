"""Who sees whom, against the rule written out cell by cell."""

import itertools

import pytest
import torch

from rate_kernels import SegmentLayout
from tests import golden

LAYOUTS = [
    SegmentLayout(*fields)
    for fields in itertools.product((0, 1, 5), (True, False), (0, 3, 17), (False, True))
]


def _sees(layout, n, row, column):
    """The rule in words: a row is read memory, a segment token or write memory; so is a key, or it is cached."""
    m, c = layout.num_memory, layout.cache_len
    kind = "read" if row < m else "segment" if row < m + n else "write"
    if column < c:
        return kind == "segment" or layout.read_cache
    key = column - c
    if key < m:
        return True
    if key < m + n:
        return kind == "write" or (kind == "segment" and key <= row)
    return kind == "write"


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("n", [1, 6])
def test_mask_is_the_rule(layout, n):
    mask = layout.mask(n)
    lq, lk = layout.query_length(n), layout.key_length(n)
    assert mask.shape == (lq, lk) and layout.segment_tokens(lq) == n
    expected = torch.tensor([[_sees(layout, n, i, j) for j in range(lk)] for i in range(lq)])
    assert torch.equal(mask, expected)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("n", "rows"), [(0, 4), (1, 4), (9, 4), (9, 100)])
def test_blocks_cover_all_that_is_seen(layout, n, rows):
    mask = layout.mask(n)
    covered = torch.zeros_like(mask)
    seen_rows = []
    for block in layout.query_blocks(n, rows):
        seen_rows += range(block.start, block.stop)
        covered[block.start : block.stop, block.key_start : block.key_stop] = True
        assert mask[block.start : block.stop, block.key_start : block.masked_from].all()
    assert seen_rows == list(range(layout.query_length(n)))
    assert not (mask & ~covered).any()


@pytest.mark.parametrize(
    "name",
    [
        "attn_cache_read",
        "attn_memory_and_cache",
        "attn_memory_front_only",
        "attn_memory_tokens",
        "attn_no_memory",
    ],
)
def test_mask_is_the_published_one(name):
    meta, arrays = golden.load(name)
    layout = golden.layout(meta)
    # The published mask hides with 1.
    assert torch.equal(layout.mask(meta["segment_tokens"]), arrays["mask"] == 0)


def test_key_padding_hides_segment_tokens_only():
    layout = SegmentLayout(num_memory=2, cache_len=3)
    padding = layout.key_padding(4, torch.tensor([0, 2, 9]))
    shown = [[int(x) for x in row] for row in padding]
    assert shown == [[0] * 11, [0] * 5 + [1, 1] + [0] * 4, [0] * 5 + [1] * 4 + [0] * 2]


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="num_memory must be at least 0, got -1"):
        SegmentLayout(num_memory=-1)
    with pytest.raises(ValueError, match="query has 3 rows, fewer than the 10 memory tokens"):
        SegmentLayout(num_memory=5).segment_tokens(3)
