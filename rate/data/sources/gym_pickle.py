"""Decision Transformer's pickles: a list of episodes, each a dict of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from rate.data.episodes import Episode
from rate.data.sources.d4rl import flags
from rate.data.sources.errors import check_keys, check_lengths
from rate.data.sources.lazy import Contents, LazyEpisodes
from rate.data.sources.spaces import common_action_spec, common_observation_spec
from rate.data.sources.unpickle import load_pickle


class GymPickleEpisodes(LazyEpisodes):
    """A pickle of the Decision Transformer code for D4RL: ``observations``, ``actions``, ``rewards`` per episode.

    ``terminals`` (or ``dones``) at an episode's last step says whether it terminated. ``next_observations`` gives the
    observation after it. Pickles are read whole and without running what is in them.

    The arguments are explained at :class:`LazyEpisodes`, for all layouts.
    """

    layout = "Decision Transformer pickle"

    def _open(self, limit: int | None) -> Contents:
        loaded = load_pickle(self.path)
        if not isinstance(loaded, list) or not all(isinstance(episode, dict) for episode in loaded):
            raise ValueError(
                f"{self.path}: must be a list of dicts, one per episode, got {type(loaded).__name__}"
            )
        if not loaded:
            raise ValueError(f"data set {self.path} must hold at least one episode, got 0")
        self._episodes: list[dict[str, np.ndarray]] = []
        self._finals: list[tuple[np.ndarray | None, bool, bool]] = []
        for index, episode in enumerate(loaded):
            self._take(index, episode)
        where = [f"{self.path}: episode {index}" for index in range(len(loaded))]
        return Contents(
            np.array([len(episode["rewards"]) for episode in self._episodes], dtype=np.int64),
            common_observation_spec(
                [(e["observations"], w) for e, w in zip(self._episodes, where, strict=True)]
            ),
            common_action_spec([(e["actions"], w) for e, w in zip(self._episodes, where, strict=True)]),
        )

    def _outline(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        episode = self._episodes[index]
        return self.action_space.convert(episode["actions"]), episode["rewards"].astype(np.float32)

    def _decode(self, index: int) -> Episode:
        episode = self._episodes[index]
        return Episode(
            self.observation_space.convert(episode["observations"]),
            self.action_space.convert(episode["actions"]),
            episode["rewards"].astype(np.float32),
        )

    def _ending(self, index: int) -> tuple[np.ndarray | None, bool, bool]:
        return self._finals[index]

    def _take(self, index: int, episode: dict[str, Any]) -> None:
        """Checks an episode's keys and lengths; of what is not trained on, only its end is kept."""
        where = f"{self.path}: episode {index}"
        check_keys(self.path, episode, self.keys)
        arrays = {
            key: value for key, value in episode.items() if isinstance(value, np.ndarray) and value.ndim
        }
        for key in self.keys:
            if key not in arrays:
                raise ValueError(f"{where}: {key} must be an array, got {type(episode[key]).__name__}")
        end = next((key for key in ("terminals", "dones") if key in arrays), None)
        following = "next_observations" if "next_observations" in arrays else None
        used = [key for key in (end, following, *self.keys) if key is not None]
        check_lengths(where, {key: len(arrays[key]) for key in used})
        terminated = True
        if end is not None and len(arrays[end]):
            terminated = bool(flags(arrays[end][-1:], end, self.path)[0])
        final = arrays[following][-1].copy() if following and len(arrays[following]) else None
        kept = {key: arrays[key] for key in self.keys}
        if kept["rewards"].ndim == 2 and kept["rewards"].shape[1] == 1:
            kept["rewards"] = kept["rewards"][:, 0]
        self._episodes.append(kept)
        self._finals.append((final, terminated, not terminated))
