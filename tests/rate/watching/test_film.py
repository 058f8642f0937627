"""The film: as many frames as steps, every kind of observation, what was remembered where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rate.watching import Look, Watched, draw
from rate.watching.film import _shrunk


def _watched(observations, frames=None):
    steps = len(observations)
    rewards = np.zeros(steps)
    rewards[-1] = 1.0
    return Watched(observations, np.zeros(steps, int), rewards, np.ones((steps, 1), np.float32), frames, True)


def _look(first, length, step):
    shares = np.full((2, length), 0.01, np.float32)
    shares[:, step] = 0.9 - 0.01 * length
    rest = np.full(2, 0.05, np.float32)
    return Look(first, shares, shares, rest, rest * 0, rest)


_STEPS = 12
_OBSERVATIONS = {
    "vector": np.random.default_rng(0).normal(size=(_STEPS, 3)).astype(np.float32),
    "discrete": np.arange(_STEPS) % 4,
    "image": np.random.default_rng(0).integers(0, 256, (_STEPS, 3, 20, 30), np.uint8),
    "stacked image": np.random.default_rng(0).integers(0, 256, (_STEPS, 4, 20, 30), np.uint8),
}


@pytest.mark.parametrize("kind", _OBSERVATIONS)
@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_a_frame_for_every_step(kind, suffix, tmp_path):
    path = tmp_path / f"film{suffix}"
    path.write_text("an older film")
    looks = [_look(0, 5, 1), _look(5, 5, 4)]
    assert draw(_watched(_OBSERVATIONS[kind]), looks, path, "a title") == _STEPS + 1
    with Image.open(path) as film:
        assert film.n_frames == _STEPS + 1
        sizes = set()
        for frame in range(_STEPS):
            film.seek(frame)
            sizes.add(film.size)
            assert np.asarray(film.convert("RGB")).std() > 1
        assert len(sizes) == 1
    with Image.open(tmp_path / "film-still.png") as still:
        assert still.size[0] == film.size[0]
    assert {p.name for p in tmp_path.iterdir()} == {"film-still.png", f"film{suffix}"}


def test_a_segment_lights_up_when_it_has_ended(tmp_path):
    path = tmp_path / "film.webp"
    draw(_watched(_OBSERVATIONS["vector"]), [_look(0, 6, 2), _look(6, 6, 3)], path, "a title")
    with Image.open(path) as film:
        bright = []
        for frame in range(film.n_frames):
            film.seek(frame)
            pixels = np.asarray(film.convert("RGB")).astype(int)
            yellow = (pixels[..., 0] > 200) & (pixels[..., 1] > 180) & (pixels[..., 2] < 120)
            bright.append(int(yellow[110:].sum()))
    before, after, at_the_end = bright[:6], bright[6:-1], bright[-1]
    assert max(before) < min(after) and max(after) < at_the_end


def test_pictures_of_the_environment_stand_beside_the_observation(tmp_path):
    frames = np.zeros((_STEPS, 40, 40, 3), np.uint8)
    frames[..., 0] = 255
    draw(_watched(_OBSERVATIONS["image"], list(frames)), [], tmp_path / "film.gif", "a title")
    with Image.open(tmp_path / "film.gif") as film:
        pixels = np.asarray(film.convert("RGB"))
    assert (pixels[60:200, 20:200] == (255, 0, 0)).all(-1).mean() > 0.9


def test_long_episodes_are_thinned(tmp_path):
    assert draw(_watched(np.zeros((1300, 2), np.float32)), [], tmp_path / "film.gif", "a title") == 326
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames <= 326  # frames that are alike are joined


def test_many_steps_in_one_place_keep_the_greatest():
    values = np.array([[0.0, 1.0, 0.0, 0.0, np.nan, np.nan]])
    assert _shrunk(values, 3).tolist()[0][:2] == [1.0, 0.0] and np.isnan(_shrunk(values, 3)[0, 2])
    assert _shrunk(values[:, :3], 6)[0].tolist() == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(("name", "fps", "said"), [("film.mp4", 10, "film.mp4"), ("film.gif", 0, "fps")])
def test_bad_arguments_are_named(name, fps, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        draw(_watched(_OBSERVATIONS["vector"]), [], tmp_path / name, "a title", fps)
    assert not list(tmp_path.iterdir())


def test_many_short_segments_are_not_hidden_by_their_borders(tmp_path):
    looks = [_look(first, 5, 2) for first in range(0, 1995, 5)]
    draw(_watched(np.zeros((2000, 2), np.float32)), looks, tmp_path / "film.webp", "a title")
    with Image.open(tmp_path / "film-still.png") as still:
        pixels = np.asarray(still.convert("RGB")).astype(int)[:120, 12:-15]
    strip = pixels[(pixels.std(1).sum(-1) > 0) & (pixels.mean((1, 2)) < 200)]
    assert len(strip) and not (strip == 255).all(-1).any()


def test_wide_observations_fit_the_page(tmp_path):
    draw(
        _watched(np.random.default_rng(0).random((6, 728), np.float32)), [], tmp_path / "film.gif", "a title"
    )
    with Image.open(tmp_path / "film.gif") as film:
        assert film.size[1] < 400
