"""Dropout masks: the share, the scale, the generator, and the same under compilation."""

import pytest
import torch

from rate_kernels.dropout import keep_mask


@pytest.mark.parametrize("dropout_p", [0.0, 0.1, 0.5, 0.93])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_share_and_scale(dropout_p, dtype):
    torch.manual_seed(0)
    mask = keep_mask(torch.Size((333, 1001)), dropout_p, torch.empty(0, dtype=dtype))
    assert mask.dtype == dtype and mask.shape == (333, 1001)
    kept = mask != 0
    deviation = (dropout_p * (1 - dropout_p) / mask.numel()) ** 0.5
    assert abs(float((~kept).double().mean()) - dropout_p) <= 5 * deviation + 2**-16
    assert torch.allclose(mask[kept].double(), torch.tensor(1 / (1 - dropout_p)).double(), rtol=1e-2)


def test_neighbours_are_independent():
    """The four elements that one number decides do not know of each other."""
    torch.manual_seed(1)
    kept = (keep_mask(torch.Size((200_000, 4)), 0.5, torch.empty(0)) != 0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 0.012


def test_seeds_and_odd_sizes():
    draws = []
    for _ in range(2):
        torch.manual_seed(7)
        draws.append(keep_mask(torch.Size((3, 5, 7)), 0.3, torch.empty(0)))
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], keep_mask(torch.Size((3, 5, 7)), 0.3, torch.empty(0)))


def test_compiled_draws_are_the_same():
    x = torch.ones(64, 33)
    compiled = torch.compile(lambda x: x * keep_mask(x.shape, 0.25, x), fullgraph=True)
    torch.manual_seed(3)
    expected = x * keep_mask(x.shape, 0.25, x)
    torch.manual_seed(3)
    assert torch.equal(compiled(x), expected)
    assert not torch.equal(compiled(x), expected)
