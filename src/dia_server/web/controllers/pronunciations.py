"""Routes of pronunciations: words that are said in another spelling."""

import asyncio
import io
from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Controller, Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.openapi.spec import Operation, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.params import JSONBody, QueryParameter

from dia_server.services.voices import pronunciation_file, pronunciations
from dia_server.services.voices.pronunciation_file import FIELD, MAX_SIZE
from dia_server.services.voices.pronunciations import PronunciationStore
from dia_server.services.voices.service import VoiceService
from dia_server.web import forms
from dia_server.web.middleware.client_address import ClientAddress
from dia_server.web.requests import upload
from dia_server.web.requests.concurrency_limit import ConcurrencyLimit
from dia_server.web.route_options import route_options
from dia_server.web.schemas import (
    Pronunciation,
    PronunciationDeleted,
    PronunciationRequest,
    Pronunciations,
    PronunciationSaved,
    PronunciationsImported,
)

MAX_FORM = MAX_SIZE + 16 * 1024
"""Maximum bytes of a form with a file."""

OfVoice = Annotated[
    str | None, QueryParameter(description="Voice whose pronunciations are listed; default: all of them")
]
WordOf = Annotated[
    str | None, QueryParameter(description="Voice that says the word so; leave it out for all voices")
]
Word = Annotated[str, QueryParameter(description="Word as GET /pronunciations shows it")]
Replace = Annotated[bool, QueryParameter(description="Delete all pronunciations that the file does not have")]


@dataclass
class ImportOperation(Operation):
    """OpenAPI description of the form, written by hand because the handler reads the form itself."""

    def __post_init__(self) -> None:
        file = Schema(
            type=OpenAPIType.STRING,
            format=OpenAPIFormat.BINARY,
            description="CSV file of GET /pronunciations/export, of at most 1 MiB",
        )
        self.request_body = forms.form_body({FIELD: file}, [FIELD])


class PronunciationController(Controller):
    path = "/pronunciations"
    tags = ["Voices"]

    @get(opt=route_options(errors=(404, 422)))
    async def list_pronunciations(
        self,
        pronunciation_store: NamedDependency[PronunciationStore],
        voice_service: NamedDependency[VoiceService],
        voice_id: OfVoice = None,
    ) -> Pronunciations:
        """List the words that are said in another spelling."""
        entries = pronunciation_store.all
        if voice_id is not None:
            resolved = voice_service.resolve(voice_id).voice_id
            entries = [entry for entry in entries if entry.voice_id == resolved]
        return Pronunciations(
            [
                Pronunciation(word=entry.word, respelling=entry.respelling, voice_id=entry.voice_id or None)
                for entry in entries
            ]
        )

    @put(opt=route_options(errors=(400, 404, 413, 415, 422, 503)))
    async def save_pronunciation(
        self,
        data: JSONBody[PronunciationRequest],
        pronunciation_store: NamedDependency[PronunciationStore],
        voice_service: NamedDependency[VoiceService],
    ) -> PronunciationSaved:
        """Say a word in another spelling from now on, in all voices or in one."""
        voice_id = "" if data.voice_id is None else voice_service.resolve(data.voice_id).voice_id
        entry = pronunciations.checked(data.word.strip(), data.respelling.strip(), voice_id)
        await pronunciation_store.save(entry)
        return PronunciationSaved(
            message=f"Pronunciation of '{entry.word}' saved",
            word=entry.word,
            respelling=entry.respelling,
            voice_id=entry.voice_id or None,
        )

    @delete(status_code=200, opt=route_options(errors=(404, 422, 503)))
    async def delete_pronunciation(
        self,
        pronunciation_store: NamedDependency[PronunciationStore],
        voice_service: NamedDependency[VoiceService],
        word: Word,
        voice_id: WordOf = None,
    ) -> PronunciationDeleted:
        """Say a word as it is written again."""
        resolved = "" if voice_id is None else voice_service.resolve(voice_id).voice_id
        await pronunciation_store.delete(word, resolved)
        return PronunciationDeleted(f"Pronunciation of '{word}' deleted", word, resolved or None)

    @get("/export", media_type="text/csv")
    async def export_pronunciations(
        self, pronunciation_store: NamedDependency[PronunciationStore]
    ) -> Response[str]:
        """Export all pronunciations as a CSV file."""
        headers = {"Content-Disposition": 'attachment; filename="pronunciations.csv"'}
        return Response(pronunciation_file.write(pronunciation_store.all), headers=headers)

    @post(
        "/import",
        status_code=200,
        request_max_body_size=MAX_FORM,
        operation_class=ImportOperation,
        opt=route_options(rate_limit="upload", errors=(400, 404, 413, 415, 422, 429, 503)),
    )
    async def import_pronunciations(
        self,
        request: Request[Any, Any, Any],
        pronunciation_store: NamedDependency[PronunciationStore],
        voice_service: NamedDependency[VoiceService],
        client_address: NamedDependency[ClientAddress],
        upload_limit: NamedDependency[ConcurrencyLimit],
        replace: Replace = False,
    ) -> PronunciationsImported:
        """Import the pronunciations of a CSV file, all of them or none."""
        with upload_limit.hold(client_address(request.scope)):
            async with upload.receive(request, FIELD, io.BytesIO) as form:
                content = form.file.read()
        lines = await asyncio.to_thread(pronunciation_file.read, content)
        entries = pronunciation_file.with_voices(lines, lambda name: voice_service.resolve(name).voice_id)
        total = await pronunciation_store.add(entries, replace=replace)
        return PronunciationsImported(
            message=f"Pronunciations imported: {len(entries)}", imported=len(entries), total=total
        )
