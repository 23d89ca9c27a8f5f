"""Routes that export voices to an archive and import them from one."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO

from litestar import Controller, Request, get, post
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.openapi.spec import Operation, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.params import QueryParameter
from litestar.response import Stream

from dia_server.services.durable_files import READ_SIZE
from dia_server.services.voices.library import VoiceLibrary
from dia_server.services.voices.library_manifest import FIELD, MAX_LICENCE, MAX_SIZE
from dia_server.services.voices.spool import Spool
from dia_server.web import forms
from dia_server.web.middleware.client_address import ClientAddress
from dia_server.web.requests import upload
from dia_server.web.requests.concurrency_limit import ConcurrencyLimit
from dia_server.web.route_options import route_options
from dia_server.web.schemas import VoicesImported

VoiceIds = Annotated[
    list[str] | None,
    QueryParameter(
        name="voice_id",
        description="Voices to export; default: all with a recording or an anchor, and all not built in",
    ),
]
Licence = Annotated[
    str | None,
    QueryParameter(max_length=MAX_LICENCE, description="Note about the terms of use, kept in the archive"),
]
Replace = Annotated[
    bool, QueryParameter(description="Replace voices and recordings that exist, instead of refusing with 409")
]


@dataclass
class ImportOperation(Operation):
    """OpenAPI description of the form, written by hand because the handler reads the form itself."""

    def __post_init__(self) -> None:
        archive = Schema(
            type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description="Archive of GET /voices/export"
        )
        self.request_body = forms.form_body({FIELD: archive}, [FIELD])


class LibraryController(Controller):
    path = "/voices"
    tags = ["Voices"]

    @get("/export", media_type="application/zip", opt=route_options(errors=(404, 409, 422, 503)))
    async def export_voices(
        self,
        request: Request[Any, Any, Any],
        client_address: NamedDependency[ClientAddress],
        upload_limit: NamedDependency[ConcurrencyLimit],
        voice_library: NamedDependency[VoiceLibrary],
        voice_ids: VoiceIds = None,
        licence: Licence = None,
    ) -> Stream:
        """Export voices with their recordings, transcripts and anchors as a ZIP archive."""
        with ExitStack() as stack:
            # an archive takes as much of the disk as an upload, until the client has read it
            stack.enter_context(upload_limit.hold(client_address(request.scope)))
            file = stack.enter_context(await voice_library.export(voice_ids or [], licence=licence))
            size = os.fstat(file.fileno()).st_size
            held = stack.pop_all()

        async def close() -> None:
            held.close()

        headers = {"Content-Length": str(size), "Content-Disposition": 'attachment; filename="voices.zip"'}
        return Stream(_read(file), headers=headers, background=BackgroundTask(close))

    @post(
        "/import",
        status_code=200,
        request_max_body_size=MAX_SIZE,
        operation_class=ImportOperation,
        opt=route_options(rate_limit="upload", errors=(400, 409, 413, 415, 422, 429, 500, 503)),
    )
    async def import_voices(
        self,
        request: Request[Any, Any, Any],
        voice_library: NamedDependency[VoiceLibrary],
        spool: NamedDependency[Spool],
        client_address: NamedDependency[ClientAddress],
        upload_limit: NamedDependency[ConcurrencyLimit],
        replace: Replace = False,
    ) -> VoicesImported:
        """Import the voices of an archive, all of them or none."""
        with upload_limit.hold(client_address(request.scope)):
            async with upload.receive(request, FIELD, spool.spool) as form:
                imported = await voice_library.add(form.file, overwrite=replace)
        return VoicesImported(
            message=f"Voices imported: {len(imported.voices)}",
            voices=[voice.voice_id for voice in imported.voices],
            audio_prompts=[prompt.prompt_id for prompt in imported.prompts],
            anchors=list(imported.anchors),
            licence=imported.licence,
        )


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, READ_SIZE):
        yield chunk
