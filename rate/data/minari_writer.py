"""Writing Minari data sets."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rate.data.episodes import Recording, SpaceSpec
from rate.data.tmaze import tmaze_recordings
from rate.data.validate import check_episode

_ROOT = "MINARI_DATASETS_PATH"
_ROOT_LOCK = threading.Lock()


def write_minari(
    output: str | os.PathLike[str],
    episodes_with_final_observation: Iterable[Recording],
    *,
    observation_space: Any,
    action_space: Any,
    env_spec: Any = None,
    algorithm_name: str = "unknown",
    description: str = "Written by the package rate.",
    overwrite: bool = False,
) -> Path:
    """Writes episodes as a Minari data set (HDF5, images without loss), checked on the way.

    The set is built beside its place and then renamed: it appears whole or not at all.

    Args:
        output: an id with a version (``tmaze/expert-v0``), written below ``$MINARI_DATASETS_PATH`` or
            ``~/.minari/datasets``; or a folder: a Path, or a string that is not such an id (``./expert-v0``).
        episodes_with_final_observation: read one by one.
        observation_space: Gymnasium space of the observations.
        action_space: Gymnasium space of the actions.
        env_spec: Gymnasium ``EnvSpec``, environment or id, for ``recover_environment``.
        algorithm_name: kept in the metadata.
        description: kept in the metadata.
        overwrite: replace a set that is there. Anything else that is there is never replaced.

    Returns:
        The set's folder.

    Raises:
        FileExistsError: if something is there already.
        TypeError: for spaces that are not supported.
        ValueError: for no episodes, or an episode that does not fit the spaces.
    """
    target, name = place(output)
    check_free(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        checked = _Buffers(episodes_with_final_observation, observation_space, action_space)
        with _datasets_root(building), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on every field of the metadata that is left out
            from minari import create_dataset_from_buffers

            create_dataset_from_buffers(
                name,
                buffer=checked,  # type: ignore[arg-type]  # it is only iterated over
                env=env_spec,
                observation_space=observation_space,
                action_space=action_space,
                algorithm_name=algorithm_name,
                description=description,
                data_format="hdf5",
                jpeg_encoding=False,
            )
        if not checked.count:
            raise ValueError("episodes_with_final_observation must hold at least one episode, got 0")
        if checked.images:
            _compress(building / name / "data" / "main_data.hdf5")
        check_free(target, overwrite)
        if target.exists():
            target.rename(building / "replaced")
        (building / name).rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    if _is_id(output):
        _make_namespace(name)
    return target


def collect_tmaze(
    output: str | os.PathLike[str],
    episodes: int,
    corridor: int | Sequence[int],
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Writes expert T-Maze episodes as a Minari data set whose environment can be recovered.

    The environment it names has the longest of the corridors.

    Args:
        output: id or folder, see :func:`write_minari`.
        episodes: their number.
        corridor: length, or lengths to draw from.
        seed: see :func:`rate.data.tmaze_episodes`.
        overwrite: replace a data set that is there.

    Returns:
        The set's folder.

    Raises:
        FileExistsError, ValueError: as :func:`write_minari` and :func:`rate.data.tmaze_episodes`.
    """
    recordings = tmaze_recordings(episodes, corridor, seed)
    import gymnasium

    import rate.envs  # noqa: F401  (registers the environment)

    # The specification names the class, so a process without this import can make the environment as well.
    env = gymnasium.make("rate/TMaze-v0", corridor_length=int(np.max(corridor)))
    spec = env.spec
    observation_space, action_space = env.observation_space, env.action_space
    env.close()
    return write_minari(
        output,
        recordings,
        observation_space=observation_space,
        action_space=action_space,
        env_spec=spec,
        algorithm_name="scripted expert",
        description=f"T-Maze, corridors {corridor}, seed {seed}",
        overwrite=overwrite,
    )


class _Buffers:
    """Recordings as Minari's buffers, checked one by one and counted."""

    def __init__(self, recordings: Iterable[Recording], observation_space: Any, action_space: Any) -> None:
        self._recordings = recordings
        self._observations = SpaceSpec.from_space(observation_space, "observation")
        self._actions = SpaceSpec.from_space(action_space, "action")
        self._dtypes = observation_space.dtype, action_space.dtype
        self.images = self._observations.kind == "image"
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        from minari.data_collector import EpisodeBuffer

        for recording in self._recordings:
            length = len(recording.rewards)
            if len(recording.observations) != length + 1:
                raise ValueError(
                    f"episode {self.count}: observations hold {len(recording.observations)} steps, expected "
                    f"{length + 1}: one more than there are rewards"
                )
            episode = recording.episode(self._observations, self._actions)
            check_episode(episode, self.count, self._observations, self._actions)
            terminations, truncations = np.zeros((2, length), np.bool_)
            terminations[-1], truncations[-1] = recording.terminated, recording.truncated
            yield EpisodeBuffer(
                observations=np.asarray(recording.observations, self._dtypes[0]),
                actions=np.asarray(recording.actions, self._dtypes[1]),
                rewards=np.asarray(recording.rewards),  # type: ignore[arg-type]
                terminations=terminations,
                truncations=truncations,
            )
            self.count += 1


def _compress(file: Path) -> None:
    """Writes a data set's images anew, compressed without loss: Minari stores them as they are."""
    import h5py

    beside = file.with_suffix(".compressed")
    with h5py.File(file) as full, h5py.File(beside, "w") as small:
        small.attrs.update(full.attrs)
        for name, episode in full.items():
            group = small.create_group(name)
            group.attrs.update(episode.attrs)
            for key, values in episode.items():
                if key == "observations":
                    # A chunk is a frame: a window of an episode is read without the rest of it.
                    chunks = (1, *values.shape[1:])
                    group.create_dataset(
                        key, data=values[()], chunks=chunks, compression="gzip", compression_opts=1
                    )
                else:
                    episode.copy(key, group)
    beside.replace(file)


def _is_id(output: str | os.PathLike[str]) -> bool:
    from minari.dataset.minari_dataset import DATASET_ID_RE

    found = DATASET_ID_RE.fullmatch(output) if isinstance(output, str) else None
    return found is not None and found["version"] is not None and not output.startswith("/")  # type: ignore[union-attr]


def place(output: str | os.PathLike[str]) -> tuple[Path, str]:
    """The folder that :func:`write_minari` writes, and the data set's id."""
    from minari.storage import get_dataset_path

    if _is_id(output):
        return get_dataset_path(str(output)), str(output)
    target = Path(output).expanduser().absolute()
    name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in target.name)
    return target, name if _is_id(name) else f"{name}-v0"


def check_free(target: Path, overwrite: bool) -> None:
    """Raises FileExistsError if something is there that may not be replaced."""
    if not target.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{target} is there already: choose another output or overwrite it")
    if not (target / "data" / "metadata.json").is_file():
        raise FileExistsError(f"{target} is there and is not a Minari data set: it is not overwritten")


@contextmanager
def _datasets_root(folder: Path) -> Iterator[None]:
    """Minari writes below the folder that an environment variable names, and nowhere else."""
    with _ROOT_LOCK:
        before = os.environ.get(_ROOT)
        os.environ[_ROOT] = str(folder)
        try:
            yield
        finally:
            if before is None:
                del os.environ[_ROOT]
            else:
                os.environ[_ROOT] = before


def _make_namespace(name: str) -> None:
    """Describes the id's namespace where Minari looks for it."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.namespace import create_namespace, list_local_namespaces

    namespace = parse_dataset_id(name)[0]
    if namespace is not None and namespace not in list_local_namespaces():
        create_namespace(namespace)
