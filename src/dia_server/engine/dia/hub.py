"""Locates checkpoints: a local folder, or a hub repository, downloaded if it is not cached."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from tqdm import tqdm

from dia_server.errors import ModelNotLoaded

# send huggingface_hub's log lines to the server's handlers, not to the library's
library_log = logging.getLogger("huggingface_hub")
library_log.handlers.clear()
library_log.propagate = True

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
FILES = ["config.json", INDEX, "*.safetensors"]

Report = Callable[[float], None]
"""Callback that receives the share of bytes downloaded, 0 to 1."""


def locate(name: str, variable: str, report: Report) -> Path:
    """Return the folder `name` or, if there is none, the local copy of the hub repository `name`.

    Files that are not cached are downloaded. `variable` is the environment variable that sets `name`; errors
    quote it. Raises ModelNotLoaded with the cause and a remedy.
    """
    if os.path.isdir(name):
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=FILES, tqdm_class=progress_bar(report)))
    except Exception as error:  # huggingface_hub's errors have no common base class
        raise ModelNotLoaded(_explain(error, name, variable)) from error


def _explain(error: Exception, name: str, variable: str) -> str:
    instead = f"set {variable} to a folder that holds it; DIA_ENGINE=preview speaks without it"
    missing = f"The checkpoint {name!r} is not on this machine"
    match error:
        case LocalEntryNotFoundError() if constants.HF_HUB_OFFLINE:
            return f"{missing}, and HF_HUB_OFFLINE forbids to download it. Unset that, or {instead}."
        case LocalEntryNotFoundError():
            cause = f"{constants.ENDPOINT} cannot be reached ({_first_line(error.__cause__ or error)})"
            return f"{missing}, and {cause}. Connect it to the network, or {instead}."
        case HFValidationError():
            return f"{name!r} is neither a folder nor the name of a repository (owner/name): see {variable}."
        case GatedRepoError():
            return (
                f"{constants.ENDPOINT} asks for permission to download {name!r}: set HF_TOKEN, or {instead}."
            )
        case RepositoryNotFoundError():
            return f"{constants.ENDPOINT} has no repository {name!r}: see {variable}."
    return f"The checkpoint {name!r} could not be downloaded: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    """Return the first line of the error's message; the hub's later lines are advice for programmers."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def progress_bar(report: Report) -> type[tqdm]:
    """Return a tqdm class for `snapshot_download` that draws nothing and reports the share of bytes done.

    The hub's own class stops counting once progress bars are disabled, and `load_codec` disables them.
    """

    class Bar(tqdm):  # type: ignore[misc]  # it has no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._nowhere = open(os.devnull, "w")  # noqa: SIM115 - closed with the bar
            super().__init__(*args, **kwargs | {"disable": False, "file": self._nowhere})

        def update(self, n: float | None = 1) -> bool | None:
            drawn: bool | None = super().update(n)
            if self.unit == "B" and self.total:
                report(min(1.0, self.n / self.total))
            return drawn

        def close(self) -> None:
            super().close()
            self._nowhere.close()

    return Bar
