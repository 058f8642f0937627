"""Models to and from the Hugging Face Hub, through huggingface_hub's mixin."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rate.hub.card import LIBRARY, MARK, PICTURES, card_text
from rate.persistence import load_model, save_model, write_text
from rate.pretrained import Pretrained

try:
    from huggingface_hub import ModelHubMixin, snapshot_download
    from huggingface_hub import errors as hub_errors
except ImportError as error:
    raise ImportError(
        f"the Hugging Face Hub needs huggingface_hub: pip install '{LIBRARY}[hub]' ({error})"
    ) from error

M = TypeVar("M", bound=Pretrained)
_FILES = ["config.json", "model.safetensors"]


class HubModel(ModelHubMixin):
    """A model as huggingface_hub's mixin takes one.

    Args:
        model: the model.
        run: folder of the run that made it, for its card, pictures and evaluation.
        name: repository, for the card.
    """

    def __init__(self, model: Pretrained, run: Path | None = None, name: str = "") -> None:
        self.model, self.run, self.name = model, run, name

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self.model, save_directory)
        written = None if self.run is None else self.run / "README.md"
        if written is not None and written.is_file() and MARK not in written.read_text():
            shutil.copyfile(written, save_directory / "README.md")  # someone's own
        else:
            write_text(save_directory / "README.md", card_text(self.model.config, self.run, self.name))
        for file in [*PICTURES, "evaluation.csv"]:
            if self.run is not None and (self.run / file).is_file():
                shutil.copyfile(self.run / file, save_directory / file)

    @classmethod
    def _from_pretrained(  # type: ignore[override]
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        kind: type[Pretrained],
        **_: Any,  # what other versions of huggingface_hub hand over
    ) -> HubModel:
        folder = snapshot_download(  # of one commit, whatever is pushed meanwhile
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=_FILES,
        )
        return cls(load_model(kind, folder))


def push(model: Pretrained, repo_id: str, run: Path | None, **options: Any) -> str:
    """See :meth:`rate.RATE.push_to_hub`."""
    with _explained(f"cannot push to {repo_id} on the Hugging Face Hub"):
        return str(HubModel(model, run, repo_id).push_to_hub(repo_id, **options))


def pull(kind: type[M], repo_id: str, **options: Any) -> M:
    """See :meth:`rate.RATE.from_pretrained`."""
    with _explained(f"no model folder at {repo_id}, and cannot read it from the Hugging Face Hub"):
        model = HubModel.from_pretrained(repo_id, kind=kind, **options).model
    assert isinstance(model, kind)
    return model


@contextmanager
def _explained(cannot: str) -> Iterator[None]:
    """Turns huggingface_hub's errors into one line that begins with ``cannot``; those of our files pass."""
    try:
        yield
    except hub_errors.GatedRepoError as error:
        raise PermissionError(f"{cannot}: it is gated; ask for access and log in") from error
    except hub_errors.RepositoryNotFoundError as error:
        hint = "there is no such repository, or it is private and needs a token (hf auth login)"
        raise FileNotFoundError(f"{cannot}: {hint}") from error
    except hub_errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{cannot}: there is no such revision") from error
    except (hub_errors.LocalEntryNotFoundError, hub_errors.OfflineModeIsEnabled) as error:
        hint = "no connection, or offline mode (HF_HUB_OFFLINE), and nothing downloaded before"
        raise ConnectionError(f"{cannot}: {hint}") from error
    except hub_errors.EntryNotFoundError as error:
        raise FileNotFoundError(f"{cannot}: it holds no model of {LIBRARY}") from error
    except hub_errors.HfHubHTTPError as error:
        if getattr(error.response, "status_code", None) in (401, 403):
            hint = "it refuses; log in with a token that may (hf auth login)"
            raise PermissionError(f"{cannot}: {hint}") from error
        raise ConnectionError(f"{cannot}: {_first_line(error)}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{cannot}: its config.json is not valid: {error}") from error
    except (FileNotFoundError, ValueError):
        raise
    except Exception as error:
        # Of whichever HTTP library huggingface_hub uses; its errors are not always those of the system.
        if isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "requests")):
            raise ConnectionError(f"{cannot}: {_first_line(error)}") from error
        raise


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
