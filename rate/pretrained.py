"""What every model can do with files and with the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from rate import persistence
from rate.config import RateConfig

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # of the Hub: user/name
_HUB_OPTIONS = ("revision", "token", "cache_dir", "force_download", "local_files_only")


class Pretrained(nn.Module):
    """A model that is made from its configuration alone, and can be saved, loaded and shared."""

    config: RateConfig

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes ``config.json`` and ``model.safetensors`` into ``folder``, each beside and then renamed."""
        persistence.save_model(self, folder)

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], device: str | torch.device = "cpu", **hub_options: Any
    ) -> Self:
        """Reads what :meth:`save_pretrained` wrote; the model is in evaluation mode and in the precision it had.

        Args:
            folder: a folder, which needs no connection, or a repository ``"user/name"`` of the Hugging Face Hub.
            device: where the model goes.
            hub_options: for a repository: ``revision``, ``token``, ``cache_dir``, ``force_download`` and
                ``local_files_only``, as huggingface_hub has them; without effect on a folder.

        Raises:
            FileNotFoundError: if a file or the repository is missing.
            ValueError: if the configuration is not valid or does not fit the parameters, or these are damaged.
            ConnectionError: if the Hub cannot be reached.
            ImportError: if the Hub is needed and huggingface_hub is not installed.
            TypeError: for an option that is none of these.
        """
        for name in hub_options:
            if name not in _HUB_OPTIONS:
                raise TypeError(
                    f"from_pretrained has no option {name!r}; known are {', '.join(_HUB_OPTIONS)}"
                )
        if isinstance(folder, str) and not os.path.exists(folder) and _REPOSITORY.fullmatch(folder):
            from rate.hub import transfer  # takes as long to import as this package

            model = transfer.pull(cls, folder, **hub_options)
        else:
            model = persistence.load_model(cls, folder)
        return model.to(device).eval()

    def push_to_hub(
        self, repo_id: str, *, run: str | os.PathLike[str] | None = None, **hub_options: Any
    ) -> str:
        """Puts the model on the Hugging Face Hub, with a model card.

        Args:
            repo_id: ``"user/name"``; the repository is made if it is not there.
            run: folder of the run that made the model: its settings, evaluation and pictures go into the card.
            hub_options: ``private``, ``token``, ``branch``, ``commit_message``, ``create_pr`` and what else
                ``huggingface_hub.ModelHubMixin.push_to_hub`` takes.

        Returns:
            Address of the commit.

        Raises:
            ConnectionError: if the Hub cannot be reached.
            PermissionError: if it refuses.
            ImportError: if huggingface_hub is not installed.
        """
        from rate.hub import transfer

        return transfer.push(self, repo_id, None if run is None else Path(run), **hub_options)
