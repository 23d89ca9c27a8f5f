"""Archives of voices, good and damaged, and servers' voices with their own folder and database."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dia_server.audio.prompt import make
from dia_server.db.engine import Database
from dia_server.files import in_folders, in_storage
from dia_server.services.durable_files import FileChange
from dia_server.services.object_store import ObjectStore
from dia_server.services.voices.anchor_file import AnchorFile, Description
from dia_server.services.voices.anchors import Anchor, AnchorStore
from dia_server.services.voices.library import VoiceLibrary
from dia_server.services.voices.library_manifest import MANIFEST
from dia_server.services.voices.prompt_folder import PromptFolder
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.pronunciations import PronunciationStore
from dia_server.services.voices.service import Voice, VoiceService
from dia_server.settings import Settings
from tests.recordings import sound, wav_file
from tests.rows import execute

TIME = (1980, 1, 1, 0, 0, 0)


class Home:
    """The voices and prompts of one data folder."""

    def __init__(self, data: Path, database_url: str | None = None, store: ObjectStore | None = None) -> None:
        """Without a `database_url`, the database is a SQLite file in `data`; without a `store`, files are."""
        self.data = data
        data.mkdir(exist_ok=True)
        self.database_url = database_url or f"sqlite+aiosqlite:///{data}/dia.sqlite3"
        self.database = Database(self.database_url)
        self.folder = PromptFolder(data / "audio_prompts", make)
        conf = Settings(data_dir=str(data))
        self.files = in_storage(conf, make, store) if store else in_folders(conf, make, shared=False)
        recordings = self.files.recordings if store else self.folder
        self.anchors = AnchorStore(self.database.sessions, self.files.anchors)
        self.pronunciations = PronunciationStore(self.database.sessions)
        self.voices = VoiceService(self.database.sessions, self.anchors, self.pronunciations)
        self.prompts = PromptService(self.database.sessions, recordings, self.voices)
        self.library = VoiceLibrary(
            self.database.sessions, recordings, self.prompts, self.voices, self.anchors
        )

    async def open(self) -> None:
        await self.database.upgrade()
        await self.library.recover()
        await self.anchors.load()
        await self.voices.load()
        await self.prompts.load()
        await self.anchors.clean()
        await self.prompts.clean()

    async def furnish(self) -> None:
        """Add two voices with a recording each, one with an anchor, and one with neither."""
        for name, seconds in (("anna", 1.0), ("ben", 0.7)):
            await self.prompts.add(name, io.BytesIO(wav_file(seconds)), f"Spoken by {name}.")
            await self.voices.save(Voice(name, audio_prompt=name))
        await self.voices.save(Voice("anna", "calm", "S2", "anna", None, "Анна", "ben"))
        await self.voices.save(Voice("made"))
        await self.add_anchor("made", seed=7)
        await self.voices.save(Voice("plain"))

    async def add_anchor(self, voice_id: str, *, seed: int, replace: bool = True) -> None:
        content = anchor_file(seed)
        await self.anchors.keep(
            Anchor(
                voice_id=voice_id,
                digest=hashlib.sha256(content).hexdigest(),
                transcript="Spoken once.",
                seed=seed,
                model="tiny",
                duration=1.0,
                faults=("clipped", "silent"),
                pitch=123.5,
            ),
            content,
            replace=replace,
        )

    @property
    def content(self) -> Any:
        """Everything that an import may change: all files, and all rows of voices and prompts."""
        files = {
            str(path.relative_to(self.data)): path.read_bytes()
            for path in self.data.rglob("*")
            if path.is_file() and not path.name.startswith("dia.sqlite3")
        }
        rows = [
            sorted(execute(self.database_url, f"SELECT * FROM {table}"), key=repr)
            for table in ("voice_mappings", "audio_prompts", "voice_anchors")
        ]
        return files, rows, dict(self.voices.all), dict(self.prompts.all), dict(self.anchors.all)


def anchor_file(seed: int) -> bytes:
    """Return the file of an anchor with 1 s of audio."""
    frames = np.full((87, 9), seed % 1024, np.int16)
    return AnchorFile(
        Description(transcript="Spoken once.", seed=seed, model="tiny"), sound(1.0), frames
    ).pack()


Files = dict[str, bytes]
Edit = Callable[[Files, dict[str, Any]], None]


def unpack(archive: bytes) -> tuple[Files, dict[str, Any]]:
    """Return the files of an archive but the manifest, and the manifest."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    return files, json.loads(files.pop(MANIFEST))


def pack(files: Files, manifest: Any, compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr(zipfile.ZipInfo(MANIFEST, TIME), json.dumps(manifest), compression)
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, TIME), content, compression)
    return out.getvalue()


def edited(archive: bytes, edit: Edit) -> bytes:
    files, manifest = unpack(archive)
    edit(files, manifest)
    return pack(files, manifest)


def describe(entry: dict[str, Any], content: bytes) -> None:
    """Make a manifest's entry describe `content`."""
    entry |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def pause_changes(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Return an event that the next change of files sets, and the one that all changes wait for."""
    begun, go_on = threading.Event(), threading.Event()
    apply = FileChange.apply

    def apply_later(change: FileChange) -> None:
        begun.set()
        assert go_on.wait(60)
        apply(change)

    monkeypatch.setattr(FileChange, "apply", apply_later)
    return begun, go_on
