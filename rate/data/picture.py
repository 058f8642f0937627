"""An episode of images as one picture."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rate.data.episodes import Episode
from rate.persistence import write_atomically

_GAP = 2
_SMALLEST = 96
"""Frames are shown at least this high, as whole multiples of their size."""


def draw_strip(episode: Episode, path: str | os.PathLike[str], frames: int = 12) -> list[int]:
    """Writes frames of an episode, evenly spaced from its first to its last step, side by side as a PNG.

    One channel is grey, three are red, green and blue, of any other number the last one is shown (a stack's newest
    frame).

    Args:
        episode: with images ``[T, C, H, W]`` uint8.
        path: of the PNG, replaced if it is there.
        frames: shown at most.

    Returns:
        The steps shown.

    Raises:
        ValueError: for observations that are not images, or fewer than one frame.
    """
    images = episode.observations
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(f"observations must be images to be drawn, got {list(images.shape)} {images.dtype}")
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    steps = np.unique(np.linspace(0, len(images) - 1, min(frames, len(images))).round().astype(int))
    shown = np.stack([rgb(images[step]) for step in steps])
    factor = max(1, -(-_SMALLEST // shown.shape[1]))
    shown = shown.repeat(factor, 1).repeat(factor, 2)
    count, height, width = shown.shape[:3]
    strip = np.full((height, count * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for number, frame in enumerate(shown):
        start = number * (width + _GAP)
        strip[:, start : start + width] = frame
    from PIL import Image

    picture = Image.fromarray(strip)
    write_atomically(Path(path), lambda file: picture.save(file, "PNG"))
    return steps.tolist()


def rgb(image: np.ndarray) -> np.ndarray:
    """``[C, H, W]`` as ``[H, W, 3]``; of anything but three channels the last one, in grey."""
    return np.moveaxis(image if len(image) == 3 else image[-1:].repeat(3, 0), 0, -1)
