"""The recordings of audio prompts: in the folder `audio_prompts/`, or in the object storage."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from dia_server.errors import PromptNotUsable
from dia_server.services.durable_files import READ_SIZE
from dia_server.services.file_change import Change, ObjectChange
from dia_server.services.object_folder import Names, ObjectFolder
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.prompt_folder import PromptFolder
from dia_server.services.voices.spool import Spool


class Recordings(Protocol):
    """Files of prompts are called `{id}.wav` and `{id}.txt` in changes. Methods raise StorageUnavailable."""

    @property
    def folder(self) -> PromptFolder | None:
        """The folder with files that the operator adds; None if there is none."""

    @property
    def make(self) -> Callable[[BinaryIO], bytes]:
        """Converts an audio file of any format to a prompt's WAV file, or raises UnusableAudio; blocks."""

    def spool(self) -> BinaryIO:
        """Open a temporary file on the disk; blocks, and raises OSError."""

    def convert(self, recording: bytes) -> bytes:
        """Return the prompt's WAV file made of an audio file of any format; blocks.

        Raises as `make`, and OSError.
        """

    def change(self) -> Change: ...

    def importing(self) -> Change:
        """Return a change that is undone by `recover` if the server dies before the database commits it."""

    async def open(self, prompt: Prompt) -> tuple[int, AsyncIterator[bytes]]:
        """Return the size of a WAV file in bytes, and an iterator over its content; raises OSError.

        Exhaust or close the iterator: it may keep a file open.
        """

    async def read(self, prompt: Prompt) -> bytes:
        """Return a prompt's WAV bytes; raises PromptNotUsable unless their SHA-256 is the prompt's."""

    async def clean(self, digests: Names) -> None:
        """Remove leftovers of a crash, and recordings that `digests` does not return."""

    async def recover(self, stored: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        """Undo an import that was interrupted before the database, which holds `stored`, committed it.

        Raises OSError.
        """


class StoredRecordings(Spool):
    """Recordings in the object storage, as `{digest}.wav`; transcripts are in the database only."""

    folder = None

    def __init__(self, path: Path, make: Callable[[BinaryIO], bytes], objects: ObjectFolder) -> None:
        super().__init__(path, make)
        self._objects = objects

    def change(self) -> ObjectChange:
        return ObjectChange(self._put)

    def importing(self) -> ObjectChange:
        return self.change()

    async def open(self, prompt: Prompt) -> tuple[int, AsyncIterator[bytes]]:
        content = await self._objects.read(_name(prompt.digest))
        return len(content), _chunks(content)

    async def read(self, prompt: Prompt) -> bytes:
        try:
            content = await self._objects.read(_name(prompt.digest))
        except FileNotFoundError:
            raise _unusable(prompt, "missing") from None
        if await asyncio.to_thread(_digest, content) != prompt.digest:
            raise _unusable(prompt, "damaged")
        return content

    async def clean(self, digests: Names) -> None:
        async def names() -> set[str]:
            return {_name(digest) for digest in await digests()}

        await self._objects.clean(names)

    async def recover(self, stored: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        """Do nothing: an interrupted import leaves recordings that no row names."""

    async def _put(self, name: str, content: bytes) -> None:
        if name.endswith(".wav"):
            await self._objects.put(_name(await asyncio.to_thread(_digest, content)), content)


def _unusable(prompt: Prompt, state: str) -> PromptNotUsable:
    return PromptNotUsable(
        f"The recording of audio prompt {prompt.prompt_id!r} is {state} in the storage; upload it again"
    )


def _name(digest: str) -> str:
    return f"{digest}.wav"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), READ_SIZE):
        yield content[start : start + READ_SIZE]
