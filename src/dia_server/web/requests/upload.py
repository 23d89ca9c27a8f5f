"""Receives multipart forms with one file, which is written to disk as it arrives.

Hand-written because Litestar's form parser keeps fields without a file name in memory, without a limit.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from litestar import Request
from litestar.exceptions import ClientException
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from dia_server.errors import Invalid, StorageUnavailable
from dia_server.units import MIB
from dia_server.web.requests import nul
from dia_server.web.requests.json_request import UnsupportedMediaType

MAX_TEXT = 16 * 1024
"""Maximum bytes of a text field, enough for 4,096 characters of any script."""
MAX_PARTS = 20
WRITE_SIZE = MIB
"""Bytes of the file buffered before a write; a write is costly, because it runs on another thread."""


@dataclass(frozen=True, slots=True)
class Upload:
    fields: dict[str, str]
    file: BinaryIO
    """Temporary file with the upload, at position 0; closed when the context of `receive` ends."""


@contextlib.asynccontextmanager
async def receive(
    request: Request[Any, Any, Any], file_field: str, spool: Callable[[], BinaryIO]
) -> AsyncIterator[Upload]:
    """Read a whole form; `spool` opens the temporary file and is called on a worker thread.

    Raises UnsupportedMediaType, ClientException (malformed form), BadRequest (incomplete body),
    PayloadTooLarge, StorageUnavailable, and Invalid (no file or several, or a field that is too long or
    contains NUL).
    """
    media_type, options = request.content_type
    if media_type != "multipart/form-data" or not options.get("boundary"):
        raise UnsupportedMediaType(
            f"The body must be multipart/form-data with a boundary, not {media_type or 'untyped'}"
        )
    try:
        file = await asyncio.to_thread(spool)
        try:
            form = _Form(file_field, file)
            await form.read(request, options["boundary"])
            if not form.has_file:
                raise Invalid(f"{file_field}: a file is required", param=file_field)
            yield Upload(form.fields, file)
        finally:
            await asyncio.to_thread(file.close)
    except OSError as error:
        raise StorageUnavailable(f"The upload failed: {error.strerror}", param=file_field) from error


class _Form:
    def __init__(self, file_field: str, file: BinaryIO) -> None:
        self.fields: dict[str, str] = {}
        self.has_file = False
        self._file_field = file_field
        self._file = file
        self._part = ""
        self._text = bytearray()
        self._unwritten = bytearray()

    async def read(self, request: Request[Any, Any, Any], boundary: str) -> None:
        parser = PushMultipartParser(boundary, max_segment_count=MAX_PARTS)
        try:
            with parser:
                async for chunk in request.stream():
                    # bytes after the end of the form are read, but ignored
                    for event in parser.parse(chunk) if chunk and not parser.closed else ():
                        self._consume(event)
                    if len(self._unwritten) >= WRITE_SIZE:
                        await self._write()
        except MultipartError as error:
            raise ClientException(f"The body is not valid multipart/form-data: {error}") from None
        await self._write()
        await asyncio.to_thread(self._file.seek, 0)

    def _consume(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        if isinstance(event, MultipartSegment):
            self._part, self._text = event.name, bytearray()
            if event.name == self._file_field:
                if self.has_file:
                    raise Invalid(f"{self._file_field}: only one file is accepted", param=self._file_field)
                self.has_file = True
        elif event is None:
            if self._part != self._file_field:
                text = self.fields[self._part] = self._text.decode()
                nul.check(self._part, text)
        elif self._part == self._file_field:
            self._unwritten += event
        else:
            self._text += event
            if len(self._text) > MAX_TEXT:
                raise Invalid(
                    f"{self._part}: too long; the limit is {MAX_TEXT:,} bytes",
                    param=self._part,
                    limit=MAX_TEXT,
                )

    async def _write(self) -> None:
        await asyncio.to_thread(self._file.write, self._unwritten)
        self._unwritten = bytearray()
