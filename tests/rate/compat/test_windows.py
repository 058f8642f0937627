"""Windows cut into segments that memory joins: where segments lie, what padding may not change, what is carried."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rate.compat.transformer import Transformer
from rate.compat.windows import WindowMemory

B, P, D, K = 3, 3, 8, 4


def build(memory_tokens: int = 2, gate_heads: int = 2) -> tuple[WindowMemory, Transformer]:
    torch.manual_seed(0)
    memory = WindowMemory(D, memory_tokens, K, gate_heads).double()
    return memory, Transformer(D, 2, 2, 16).double().eval()


def window(steps: int, start: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(B, 100, P, D, dtype=torch.float64, generator=generator)
    return tokens[:, start : start + steps], torch.arange(start, start + steps).expand(B, -1)


@pytest.mark.parametrize("memory_tokens", [0, 2])
@pytest.mark.parametrize("gate_heads", [0, 2])
def test_padding_on_either_side_changes_nothing(memory_tokens: int, gate_heads: int) -> None:
    memory, transform = build(memory_tokens, gate_heads)
    tokens, steps = window(9, start=3)
    alone, kept = memory(tokens, transform, steps)
    for before, after in ((2, 0), (0, 3), (5, 1)):
        padded = torch.full((B, before + 9 + after, P, D), float("nan"), dtype=torch.float64)
        padded[:, before : before + 9] = tokens
        padded_steps = torch.full((B, before + 9 + after), 77)
        padded_steps[:, before : before + 9] = steps
        real = torch.zeros(B, before + 9 + after, dtype=torch.bool)
        real[:, before : before + 9] = True
        padded = padded if memory_tokens else padded.nan_to_num(5.0)
        read, after_padding = memory(padded, transform, padded_steps, real)
        torch.testing.assert_close(read[:, before : before + 9], alone)
        torch.testing.assert_close(after_padding, kept)


def test_rows_of_different_places_and_lengths_read_as_they_do_alone() -> None:
    memory, transform = build()
    starts, lengths = (0, 3, 6), (9, 2, 7)
    tokens, _ = window(100)
    real = torch.stack([torch.arange(9) >= 9 - n for n in lengths])
    steps = torch.stack([torch.arange(9) - (9 - n) + s for s, n in zip(starts, lengths, strict=True)]).clamp(
        0
    )
    padded = torch.stack([tokens[b, :9] for b in range(B)])
    read, kept = memory(padded, transform, steps, real)
    for b, n in enumerate(lengths):
        alone, alone_kept = memory(padded[b : b + 1, 9 - n :], transform, steps[b : b + 1, 9 - n :])
        torch.testing.assert_close(read[b, 9 - n :], alone[0])
        torch.testing.assert_close(kept[b], alone_kept[0])


def test_a_window_may_go_on_from_an_earlier_one() -> None:
    memory, transform = build()
    whole, kept = memory(*rearranged(window(12), transform))
    first, carried = memory(*rearranged(window(8), transform))
    second, after = memory(*rearranged(window(4, start=8), transform), memory=carried)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(after, kept)
    fresh, _ = memory(*rearranged(window(8), transform), memory=torch.full_like(carried, 9.0))
    torch.testing.assert_close(fresh, first)  # an episode's first window takes no memory


def test_the_past_reaches_later_segments_through_memory_alone() -> None:
    memory, transform = build()
    tokens, steps = window(8)
    tokens = tokens.clone().requires_grad_()
    read, _ = memory(tokens, transform, steps)
    read[:, 5].sum().backward()
    assert tokens.grad is not None and tokens.grad[:, 1].abs().sum() > 0
    assert memory.gate is not None and memory.gate.value.weight.grad is not None
    assert tokens.grad[:, 6:].abs().sum() == 0  # nothing of the future


def test_an_unfinished_segment_writes_no_memory() -> None:
    memory, transform = build()
    _, after_four = memory(*rearranged(window(4), transform))
    _, after_six = memory(*rearranged(window(6), transform))
    torch.testing.assert_close(after_six, after_four)


def test_gradients() -> None:
    memory, transform = build()
    tokens, steps = window(5, start=2)
    real = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 1, 1]]).bool()
    tokens = tokens[:, :, :1, :].clone().requires_grad_()

    def loss(x: Tensor) -> Tensor:
        read, kept = memory(x, transform, steps, real)
        assert kept is not None
        return (read * real[:, :, None, None]).sum() + kept.pow(2).sum()

    assert torch.autograd.gradcheck(loss, tokens)


def test_bad_settings_are_named() -> None:
    for arguments, name in (
        ((8, -1, 4), "memory_tokens"),
        ((8, 1, 0), "segment_length"),
        ((8, 1, 4, 3), "gate"),
    ):
        with pytest.raises(ValueError, match=name):
            WindowMemory(*arguments)


def rearranged(given: tuple[Tensor, Tensor], transform: Transformer) -> tuple[Tensor, Transformer, Tensor]:
    tokens, steps = given
    return tokens, transform, steps


@pytest.mark.parametrize("memory_tokens", [0, 2])
def test_features_beyond_the_width_are_handed_back_and_not_remembered(memory_tokens: int) -> None:
    memory, transform = build(memory_tokens)
    tokens, steps = window(7, start=2)
    real = torch.tensor([[1, 1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]).bool()
    for mask in (None, real):
        read, kept = memory(tokens, transform, steps, mask)
        wide, after = memory(tokens, lambda x, *rest: torch.cat([transform(x, *rest), x], -1), steps, mask)
        chosen = ... if mask is None else mask
        torch.testing.assert_close(wide[..., :D], read)
        torch.testing.assert_close(wide[chosen][..., D:], tokens[chosen])
        torch.testing.assert_close(after, kept)
