"""Models and files: written beside and renamed, so that a reader never meets half of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rate.config import RateConfig

if TYPE_CHECKING:
    from rate.pretrained import Pretrained

M = TypeVar("M", bound="Pretrained")


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Calls ``write`` with a path beside ``path``, flushes what it wrote to disk, then renames it to ``path``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text beside ``path`` and renames it to ``path``."""
    write_atomically(path, lambda beside: beside.write_text(text))


def save_model(model: Pretrained, folder: str | os.PathLike[str]) -> None:
    """See :meth:`rate.RATE.save_pretrained`."""
    folder = Path(folder)
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    write_text(folder / "config.json", model.config.to_json())
    write_atomically(
        folder / "model.safetensors", lambda path: save_file(tensors, path, metadata={"format": "pt"})
    )


def load_model(cls: type[M], folder: str | os.PathLike[str]) -> M:
    """See :meth:`rate.RATE.from_pretrained`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no model folder at {folder}")
    config = RateConfig.load(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"no model.safetensors in {folder}")
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"{weights} is not a safetensors file: {error}") from None
    try:
        model = cls(config)
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} is not valid: {error}") from None
    expected = model.state_dict()
    for name in [*expected, *tensors]:
        if name not in tensors or name not in expected:
            state = "lacks" if name not in tensors else "has unexpected"
            raise ValueError(f"config does not fit the checkpoint: {weights} {state} parameter {name!r}")
        if tensors[name].shape != expected[name].shape:
            raise ValueError(
                f"config does not fit the checkpoint: {name} is {list(tensors[name].shape)} in {weights}, "
                f"{list(expected[name].shape)} by the config"
            )
        if not tensors[name].is_floating_point():
            raise ValueError(f"{name} in {weights} must be floating point, got {tensors[name].dtype}")
        if not tensors[name].isfinite().all():
            raise ValueError(f"{name} in {weights} holds values that are not finite")
    # In the precision that they were saved in. Copied, because tensors in a file are not aligned, and kernels answer
    # other bits, and later, for such.
    model.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    return model
