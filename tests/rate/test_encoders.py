"""The image encoder: images that repeat pass it once, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from rate import RateConfig
from rate.encoders import ImageEncoder, _distinct

SHAPE = (3, 36, 36)


def _encoder() -> ImageEncoder:
    torch.manual_seed(0)
    config = RateConfig(observation="image", observation_shape=SHAPE, action_size=3, d_model=16, num_heads=2)
    return ImageEncoder(config).double()


def _images(count: int, different: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    pool = torch.randint(0, 256, (different, *SHAPE), dtype=torch.uint8, generator=draw)
    order = torch.cat([torch.arange(different), torch.randint(0, different, (count,), generator=draw)])
    return pool[order[:count][torch.randperm(count, generator=draw)]]


def test_images_that_repeat_pass_once_and_give_the_same():
    encoder, images = _encoder(), _images(24, 5).view(4, 6, *SHAPE)
    passed = []
    encoder.convolutions.register_forward_pre_hook(lambda _, arguments: passed.append(len(arguments[0])))
    shared = encoder(images)
    gradient = torch.randn_like(shared)
    ours = torch.autograd.grad(shared, list(encoder.parameters()), gradient)
    apart = torch.stack([encoder(image) for image in images.flatten(0, 1)[:, None]]).view_as(shared)
    theirs = torch.autograd.grad(apart, list(encoder.parameters()), gradient)
    assert passed == [5] + 24 * [1]
    torch.testing.assert_close(shared, apart, rtol=1e-12, atol=1e-12)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (_images(24, 20), "most differ"),
        (_images(6, 2), "few"),
        (_images(24, 3).float(), "not uint8"),
        (_images(24, 3)[..., :35], "no whole words"),
    ],
)
def test_what_gains_nothing_passes_as_it_is(images, why):
    assert _distinct(images) is None, why


def test_images_that_differ_where_the_first_look_does_not_go_are_told_apart():
    images = _images(32, 1)
    images[::2, 0, 0, 9] += 1  # in the second word of 486
    chosen, which = _distinct(images)
    assert len(chosen) == 2 and torch.equal(images[chosen][which], images)


def test_one_pixel_in_every_image_is_enough():
    images = _images(32, 1)
    images.flatten(1)[torch.arange(32), torch.arange(32) * 8 + 3] += 1
    assert _distinct(images) is None
