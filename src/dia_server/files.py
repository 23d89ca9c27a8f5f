"""Chooses where files are kept: in folders of the data folder, or in an object storage (DIA_STORAGE)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from dia_server.db.engine import Database
from dia_server.db.identity import database_id
from dia_server.services.digest_folder import DigestFolder
from dia_server.services.durable_files import GRACE_S
from dia_server.services.jobs.outputs import Outputs, OutputsFolder, StoredOutputs
from dia_server.services.object_folder import ObjectFolder
from dia_server.services.object_store import ObjectStore, connect
from dia_server.services.voices.anchor_folder import AnchorFiles, AnchorFolder
from dia_server.services.voices.prompt_folder import PromptFolder
from dia_server.services.voices.recordings import Recordings, StoredRecordings
from dia_server.services.voices.reference_files import ReferenceFiles, ReferenceFolder, StoredReferences
from dia_server.settings import Settings
from dia_server.units import GIB

CACHE_FILES, CACHE_BYTES = 100_000, GIB
"""Limits of the cache of an object storage: recordings, anchors and references."""

Make = Callable[[BinaryIO], bytes]
"""Converts an audio file of any format to a prompt's WAV file, or raises UnusableAudio."""


@dataclass(frozen=True, slots=True)
class Files:
    recordings: Recordings
    anchors: AnchorFiles
    candidates: AnchorFiles
    references: ReferenceFiles
    outputs: Outputs
    shared: bool
    """Whether several servers may use them at the same time, so that young files without a row are kept."""
    cleanings: Sequence[Callable[[], Awaitable[None]]] = ()
    """Remove files of this server that it has not used for a day."""


def choose(conf: Settings, make: Make, database: Database) -> Files:
    """Return the files of the server; raises StorageUnusable."""
    if conf.storage:
        return in_storage(conf, make, connect(conf.storage, partial(database_id, database.reads)))
    return in_folders(conf, make, shared=database.shared)


def in_folders(conf: Settings, make: Make, *, shared: bool) -> Files:
    grace_s = GRACE_S if shared else 0.0
    return Files(
        recordings=PromptFolder(conf.audio_prompts, make, grace_s=grace_s),
        anchors=AnchorFolder(conf.anchors, grace_s=grace_s),
        candidates=AnchorFolder(conf.candidates, grace_s=grace_s),
        references=ReferenceFolder(conf.references, grace_s=grace_s),
        outputs=OutputsFolder(conf.audio_outputs, grace_s=grace_s),
        shared=shared,
    )


def in_storage(conf: Settings, make: Make, store: ObjectStore) -> Files:
    cache = DigestFolder(conf.cache, max_files=CACHE_FILES, max_bytes=CACHE_BYTES, grace_s=GRACE_S)
    return Files(
        recordings=StoredRecordings(conf.cache, make, ObjectFolder(store, "recordings", cache)),
        anchors=ObjectFolder(store, "anchors", cache),
        candidates=ObjectFolder(store, "candidates"),
        references=StoredReferences(ObjectFolder(store, "references", cache)),
        outputs=StoredOutputs(store),
        shared=True,
        cleanings=[partial(asyncio.to_thread, cache.sweep, ())],
    )
