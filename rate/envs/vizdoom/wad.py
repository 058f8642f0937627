"""The Two-Colors scenario as a WAD, the container of Doom's levels, made from the texts in ``scenario``.

The engine interprets the actors (DECORATE) and builds what it needs of the maps (UDMF) by itself, so no compiler is
needed, and the same texts give the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template

from rate.envs.cache import cache_folder
from rate.persistence import write_atomically

MAPS = {"red": "MAP01", "green": "MAP02"}
"""Map by the colour of its pillar."""
_PILLARS = {"red": 20001, "green": 20002}
"""Editor numbers of the pillars in the actors' text."""
_RAMPS = {"red": 176, "green": 112}
"""Where a colour's shades begin in the palette; the next ones are darker."""
_FIRST_PAIRS = 10
_ALWAYS = " ".join(f"{flag} = true;" for flag in ("skill1", "skill2", "skill3", "skill4", "skill5", "single"))


def scenario_path(cue_tics: int) -> Path:
    """The WAD's file in the cache folder, written if it is not there or not what it should be.

    Args:
        cue_tics: how long the pillar stands, in tics (35 a second).

    Raises:
        OSError: if the file cannot be written, naming the variable that moves the folder.
    """
    content = scenario(cue_tics)
    path = cache_folder() / f"two-colors-{sha256(content).hexdigest()[:16]}.wad"
    try:
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, lambda beside: beside.write_bytes(content))
    except OSError as error:
        raise OSError(f"cannot keep the scenario at {path}: {error}; set XDG_CACHE_HOME") from None
    return path


def scenario(cue_tics: int) -> bytes:
    """The WAD's bytes; see :func:`scenario_path`."""
    gems = (
        f'    TNT1 A 0 A_SpawnItemEx("{gem}", random(-600, 600), random(-600, 600), 0)'
        for gem in ("RedGem", "GreenGem") * _FIRST_PAIRS
    )
    actors = _text("decorate", cue_tics=str(cue_tics), first_gems="\n".join(gems))
    lumps = [("DECORATE", actors)]
    for colour, name in MAPS.items():
        room = _text("textmap", pillar=str(_PILLARS[colour]), always=_ALWAYS)
        lumps += [(name, b""), ("TEXTMAP", room), ("ENDMAP", b"")]
    lumps += [("S_START", b"")]
    for colour, ramp in _RAMPS.items():
        letter = colour[0].upper()
        lumps += [(f"{letter}PILA0", _pillar(ramp)), (f"{letter}GEMA0", _gem(ramp))]
    return _wad([*lumps, ("S_END", b"")])


def _text(name: str, **values: str) -> bytes:
    source = (files("rate.envs.vizdoom") / "scenario" / f"{name}.txt").read_text(encoding="ascii")
    return Template("\n".join(source.splitlines()) + "\n").substitute(values).encode("ascii")


def _pillar(ramp: int) -> bytes:
    """A cylinder, 32 x 96 pixels, dark at the sides."""
    return _picture(32, 96, lambda x, y: ramp + min(7, abs(2 * x - 31) * 7 // 31))


def _gem(ramp: int) -> bytes:
    """A diamond, 28 x 28 pixels, dark at the edges."""

    def shade(x: int, y: int) -> int | None:
        far = abs(2 * x - 27) + abs(2 * y - 27)
        return ramp + min(6, far * 6 // 28) if far <= 28 else None

    return _picture(28, 28, shade)


def _picture(width: int, height: int, shade: Callable[[int, int], int | None]) -> bytes:
    """Doom's picture format, standing on the middle of its lower edge.

    Args:
        width, height: pixels, at most 128 high.
        shade: palette index at (x, y), None for nothing there; a column has one run of pixels at most.
    """
    columns = []
    for x in range(width):
        run = [(y, colour) for y in range(height) if (colour := shade(x, y)) is not None]
        pixels = bytes(colour for _, colour in run)
        # A run: its first row, its length, a byte nobody reads, the pixels, another such byte. 255 ends a column.
        post = struct.pack("BBx", run[0][0], len(run)) + pixels + b"\0" if run else b""
        columns.append(post + b"\xff")
    offset = 8 + 4 * width
    offsets = b""
    for column in columns:
        offsets += struct.pack("<I", offset)
        offset += len(column)
    return struct.pack("<HHhh", width, height, width // 2, height) + offsets + b"".join(columns)


def _wad(lumps: Iterable[tuple[str, bytes]]) -> bytes:
    """Header, contents one after the other, directory of (offset, size, name)."""
    contents = directory = b""
    count = 0
    for name, content in lumps:
        directory += struct.pack("<ii8s", 12 + len(contents), len(content), name.encode("ascii"))
        contents += content
        count += 1
    return struct.pack("<4sii", b"PWAD", count, 12 + len(contents)) + contents + directory
