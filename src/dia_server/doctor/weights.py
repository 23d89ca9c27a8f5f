"""Checks whether the model's files are on this machine."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from dia_server.doctor.finding import Finding, note, ok, wrong
from dia_server.doctor.machine import wants_dia
from dia_server.settings import Settings

INDEX = "model.safetensors.index.json"
DOWNLOAD = 8 * 10**9
"""Size in bytes of Dia's and the codec's files on the hub (fp32), rounded up."""


def check_weights(conf: Settings) -> Iterator[Finding]:
    if not wants_dia(conf):
        yield ok("Weights", "not needed by the preview engine")
        return
    missing = []
    for subject, name in (("Dia", conf.model), ("Codec", conf.codec)):
        folder = Path(name) if Path(name).is_dir() else _in_cache(name)
        if folder is None:
            missing.append(name)
        elif lacking := _lacking(folder):
            yield wrong(subject, f"{folder} lacks {', '.join(lacking)}.")
        else:
            yield ok(subject, f"{name}, in {folder}")
    if missing:
        yield _downloads(missing)


def _downloads(names: list[str]) -> Finding:
    from huggingface_hub import constants

    what = " and ".join(names)
    if constants.HF_HUB_OFFLINE:
        return wrong("Weights", f"{what} not on this machine, and HF_HUB_OFFLINE forbids downloads.")
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
    if free < DOWNLOAD:
        return wrong(
            "Weights",
            f"{what} not on this machine, and {cache} has only {free / 1e9:.1f} GB free; the download "
            f"may take {DOWNLOAD / 1e9:.0f} GB. Delete some files, or move the cache with HF_HOME.",
        )
    return note(
        "Weights", f"{what} not downloaded yet; the first start downloads up to {DOWNLOAD / 1e9:.0f} GB."
    )


def _in_cache(name: str) -> Path | None:
    """Return the folder of checkpoint `name` in the hub's cache; None if not cached or not a hub id."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def _lacking(folder: Path) -> list[str]:
    """Return the names of required files that `folder` lacks; a dangling link counts as missing."""
    needed = {"config.json", "model.safetensors"}
    if (folder / INDEX).exists():
        parts: dict[str, str] = json.loads((folder / INDEX).read_bytes())["weight_map"]
        needed = {"config.json", *parts.values()}
    return sorted(name for name in needed if not (folder / name).exists())
