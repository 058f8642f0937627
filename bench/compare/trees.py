"""Source trees of two versions, ready to be imported: from a folder, or from a commit with its extension built."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BUILT = ROOT / "build" / "extensions"
"""Extensions by the hash of what they are built from, so that each is built once."""


def resolve(side: str, scratch: Path) -> Path:
    """The source tree that ``side`` names: a folder with rate_kernels in it, or a git revision.

    A revision is unpacked under ``scratch``; the repository and its work trees are left as they are.

    Raises:
        ValueError: if it is neither.
    """
    folder = Path(side)
    if (folder / "rate_kernels" / "segment.py").is_file():
        return folder.resolve()
    if folder.is_dir():
        raise ValueError(f"{side} is a folder without rate_kernels in it")
    told = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{side}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if told.returncode:
        raise ValueError(f"{side!r} is no results file, no source folder and no commit")
    tree = scratch / told.stdout.strip()[:12]
    if not tree.is_dir():
        tree.mkdir(parents=True)
        archive = subprocess.run(
            ["git", "archive", told.stdout.strip()], cwd=ROOT, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
        _add_extension(tree)
    return tree


def _add_extension(tree: Path) -> None:
    """Builds the tree's extension, or takes it from an earlier build of the same sources."""
    kept = _BUILT / _fingerprint(tree)
    if not (kept / "_build.json").is_file():
        print(f"building the extension of {tree.name}", file=sys.stderr, flush=True)
        built = subprocess.run(
            [sys.executable, "setup.py", "build_ext", "--inplace"], cwd=tree, capture_output=True, text=True
        )
        if built.returncode:
            raise ValueError(f"the extension of {tree.name} cannot be built:\n{built.stdout[-2000:]}")
        kept.mkdir(parents=True, exist_ok=True)
        for file in _products(tree / "rate_kernels"):
            shutil.copy2(file, kept / file.name)
        return
    for file in _products(kept):
        shutil.copy2(file, tree / "rate_kernels" / file.name)


def _products(folder: Path) -> list[Path]:
    return [*folder.glob("_native*.so"), *folder.glob("_build.json")]


def _fingerprint(tree: Path) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted([tree / "setup.py", tree / "CMakeLists.txt", *(tree / "csrc").rglob("*")]):
        if path.is_file():
            digest.update(str(path.relative_to(tree)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
