"""A watched episode as a film: what was seen, and under it where the write tokens looked, segment by segment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rate.data.picture import rgb
from rate.persistence import write_atomically
from rate.watching.looks import Look
from rate.watching.watch import Watched

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

SUFFIXES = (".gif", ".webp")
"""What :func:`draw` can write; the second is several times smaller."""

_WIDTH, _MARGIN, _ROW, _ROWS, _LINE, _PICTURE, _THUMBNAIL = 620, 10, 9, 180, 18, 224, 112
_BACKGROUND, _INK, _QUIET, _BLANK, _CURSOR = (
    (255, 255, 255),
    (30, 30, 30),
    (120, 120, 120),
    (232, 232, 232),
    (213, 94, 0),
)


def draw(
    watched: Watched, looks: Sequence[Look], path: str | os.PathLike[str], title: str, fps: int = 10
) -> int:
    """Writes an episode as an animation, and beside it, see :func:`still_of`, a picture of all that was written.

    Args:
        watched: the episode.
        looks: of its finished segments; empty for a model without memory.
        path: of the animation, ending in one of :data:`SUFFIXES`; replaced if it is there.
        title: first line of every frame.
        fps: frames a second, a step each. Of an episode longer than 400 steps every second, third, ... is shown.

    Returns:
        Frames written.

    Raises:
        ValueError: for another ending of the path, or fewer than one frame a second.
    """
    check_path(path)
    if fps < 1:
        raise ValueError(f"fps must be at least 1, got {fps}")
    page = _Page(watched, looks, title)
    length = len(watched.actions)
    steps = range(0, length, -(-length // 400))
    frames = (*map(page.at, steps), page.at_the_end())
    settings = {"loop": 0, "duration": [round(1000 / fps)] * len(steps) + [2000]}
    kind = Path(path).suffix[1:].upper()
    if kind == "WEBP":
        settings |= {"quality": 75, "method": 2}
    write_atomically(
        path,
        lambda beside: frames[0].save(beside, kind, save_all=True, append_images=frames[1:], **settings),
    )
    still = page.still()
    write_atomically(still_of(path), lambda beside: still.save(beside, "PNG"))
    return len(frames)


def still_of(path: str | os.PathLike[str]) -> Path:
    """The still picture that goes with a film."""
    return Path(path).with_name(f"{Path(path).stem}-still.png")


def check_path(path: str | os.PathLike[str]) -> None:
    """Raises ValueError for a path whose ending :func:`draw` does not know."""
    if Path(path).suffix not in SUFFIXES:
        raise ValueError(f"the video's path must end in {' or '.join(SUFFIXES)}, got {os.fspath(path)}")


class _Page:
    """The layout of a frame: title, pictures, the episode's strips, and the steps the last segment was written from."""

    def __init__(self, watched: Watched, looks: Sequence[Look], title: str) -> None:
        self.watched, self.looks, self.title = watched, looks, title
        self.asked, self.earned = watched.returns_to_go[:, 0], np.cumsum(watched.rewards)

    def at(self, step: int) -> Image:
        """The frame of a step, with the segments that had ended by then."""
        ended = [look for look in self.looks if look.end <= step]
        segment = "" if not self.looks else f", segment {len(ended) + 1}"
        text = (
            f"step {step + 1} of {len(self.asked)}{segment}   asked {self.asked[step]:.2f}, "
            f"earned {self.earned[step - 1] if step else 0.0:.2f}"
        )
        return self._frame(text, step, ended)

    def at_the_end(self) -> Image:
        """The last step's frame, with all segments."""
        return self._frame(self._outcome(), len(self.asked) - 1, self.looks)

    def _frame(self, text: str, step: int, ended: Sequence[Look]) -> Image:
        blocks = [*self._heading(text), *self._seen(step), *self._remembered(ended, step)]
        if self.looks:
            blocks += self._most(ended[-1] if ended else None, len(ended))
        return _stacked(blocks)

    def still(self) -> Image:
        """The whole episode: its strips, and the steps that each of up to eight segments was written from."""
        chosen = np.unique(np.linspace(0, len(self.looks) - 1, min(8, len(self.looks))).round().astype(int))
        blocks = [*self._heading(self._outcome()), *self._remembered(self.looks, None)]
        for number in chosen:
            blocks += self._most(self.looks[number], int(number) + 1)
        return _stacked(blocks)

    def _outcome(self) -> str:
        outcome = {True: ", success", False: ", no success", None: ""}[self.watched.success]
        return f"{len(self.asked)} steps, return {self.earned[-1]:.2f}{outcome}"

    def _heading(self, text: str) -> list[Image]:
        return [_text(self.title, _INK), _text(text, _QUIET)]

    def _seen(self, step: int) -> list[Image]:
        """What the environment drew and what the model was shown, side by side where both are pictures."""
        pictures = self._pictures(step)
        if not pictures:
            return [
                _text("observations, one row each", _QUIET),
                self._strip(_components(self.watched.observations), step),
            ]
        return [_side_by_side(pictures, _PICTURE)]

    def _pictures(self, step: int) -> list[np.ndarray]:
        frames, observed = self.watched.frames, self.watched.observations
        pictures = [] if frames is None else [frames[step]]
        if observed.ndim == 4:
            pictures.append(rgb(observed[step]))
        return pictures

    def _remembered(self, ended: Sequence[Look], step: int | None) -> list[Image]:
        """The strips of attention: a row per layer over the episode's steps, and what memory itself got."""
        if not self.looks:
            return []
        layers = len(self.looks[0].peaks)
        shares = np.full((layers, len(self.asked)), np.nan)
        kept = np.full((layers, len(self.asked)), np.nan)
        for look in ended:
            shares[:, look.first : look.end] = look.peaks / look.peaks.max()
            if look.first:  # before the first segment nothing is remembered yet
                kept[:, look.first : look.end] = look.remembered[:, None]
        return [
            _text(
                "where the write tokens looked: a row per layer, in each segment its most is brightest",
                _QUIET,
            ),
            self._strip(shares, step),
            _text("how much of it went to what was remembered before: black none, white all", _QUIET),
            self._strip(kept, step, "gray"),
        ]

    def _strip(self, values: np.ndarray, step: int | None, colours: str = "viridis") -> Image:
        """``[rows, T]`` in 0..1 over the width of the page, NaN left blank; segments parted, the step marked."""
        columns = _shrunk(values, _WIDTH)
        if len(columns) > _ROWS:
            columns = _shrunk(columns.T, _ROWS).T
        picture = _coloured(columns, colours).repeat(max(1, min(_ROW, _ROWS // len(columns))), 0)
        scale = _WIDTH / values.shape[1]
        for look in self.looks:
            # Lines between segments, as long as they leave the segments to be seen.
            if look.end < values.shape[1] and (look.end - look.first) * scale >= 4:
                picture[:, int(look.end * scale)] = 255
        if step is not None:
            here = min(int((step + 0.5) * scale), _WIDTH - 2)
            picture[:, here : here + 2] = _CURSOR
        return _picture(picture)

    def _most(self, look: Look | None, number: int) -> list[Image]:
        """The steps that a segment was written from most."""
        if look is None:
            written = [_text("nothing written yet", _QUIET)]
            return [*written, _side_by_side([], _THUMBNAIL)] if self._pictures(0) else written
        found = look.most(5 if self._pictures(0) else 4)
        said = ", ".join(f"step {step + 1} ({share:.0%})" for step, share in found)
        lines = [_text(f"segment {number}, looked at most: {said}", _INK)]
        if not self._pictures(0):
            return lines
        return [*lines, _side_by_side([self._pictures(step)[-1] for step, _ in found], _THUMBNAIL)]


def _components(observations: np.ndarray) -> np.ndarray:
    """Vectors ``[T, n]``, or indices ``[T]``, as rows ``[n, T]`` of numbers from 0 to 1."""
    if observations.ndim == 1:
        return (np.arange(observations.max() + 1)[:, None] == observations).astype(float)
    low, high = observations.min(0), observations.max(0)
    return ((observations - low) / np.where(high > low, high - low, 1)).T.astype(float)


def _shrunk(values: np.ndarray, width: int) -> np.ndarray:
    """``[rows, T]`` as ``[rows, width]``: a step is repeated, or of several in one place the greatest is kept."""
    steps = values.shape[1]
    starts = np.arange(width) * steps // width
    if steps <= width:
        return values[:, starts]
    blank = np.isnan(values)
    greatest = np.maximum.reduceat(np.where(blank, -np.inf, values), starts, axis=1)
    return np.where(np.isinf(greatest), np.nan, greatest)


def _coloured(values: np.ndarray, colours: str) -> np.ndarray:
    """Numbers from 0 to 1 as uint8 colours ``[..., 3]``; NaN is grey."""
    from matplotlib import colormaps

    shown = (colormaps[colours](np.nan_to_num(values))[..., :3] * 255).astype(np.uint8)
    shown[np.isnan(values)] = _BLANK
    return shown


def _side_by_side(pictures: Sequence[np.ndarray], height: int) -> Image:
    """Pictures ``[H, W, 3]`` scaled to one height, from left to right as far as the page is wide."""
    from PIL import Image

    row = Image.new("RGB", (_WIDTH, height), _BACKGROUND)
    left = 0
    for picture in pictures:
        size = (round(picture.shape[1] * height / picture.shape[0]), height)
        row.paste(Image.fromarray(picture).resize(size, Image.Resampling.BOX), (left, 0))
        left += size[0] + _MARGIN
    return row


def _picture(pixels: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(pixels)


def _text(text: str, colour: tuple[int, int, int]) -> Image:
    """One line; what is too long is left out."""
    from PIL import Image, ImageDraw

    line = Image.new("RGB", (_WIDTH, _LINE), _BACKGROUND)
    ImageDraw.Draw(line).text((0, _LINE / 2), text, colour, _font(), anchor="lm")
    return line


@cache
def _font() -> FreeTypeFont:
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 12)  # comes with matplotlib


def _stacked(blocks: Sequence[Image]) -> Image:
    """Blocks under each other, with a margin around."""
    from PIL import Image

    page = Image.new(
        "RGB", (_WIDTH + 2 * _MARGIN, sum(b.height + 4 for b in blocks) + 2 * _MARGIN), _BACKGROUND
    )
    top = _MARGIN
    for block in blocks:
        page.paste(block, (_MARGIN, top))
        top += block.height + 4
    return page
