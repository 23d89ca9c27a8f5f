"""Routes of audio prompts: upload, list, download, delete, discover."""

from dataclasses import asdict, dataclass
from typing import Any

from litestar import Controller, Request, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Operation, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath, JSONBody
from litestar.response import Stream

from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.ids import ID
from dia_server.services.voices.prompt_folder import MAX_AUDIO, wav_name
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.spool import Spool
from dia_server.services.voices.transcripts import TranscriptService
from dia_server.web import forms
from dia_server.web.middleware.client_address import ClientAddress
from dia_server.web.requests import upload
from dia_server.web.requests.concurrency_limit import ConcurrencyLimit
from dia_server.web.route_options import route_options
from dia_server.web.schemas import (
    AudioPrompt,
    AudioPromptDeleted,
    AudioPromptMetadata,
    AudioPrompts,
    AudioPromptsMetadata,
    AudioPromptUploaded,
    Discovered,
    DiscoveredPrompt,
    DiscoverRequest,
    SkippedFile,
    TranscriptConfidence,
)

FILE_FIELD = "audio_file"
MAX_UPLOADS = 64
"""Maximum concurrent uploads; each takes up to 200 MiB in a temporary file on the disk."""
MAX_UPLOADS_PER_ADDRESS = 8
DISCOVER = DiscoverRequest()
"""Options of POST /audio_prompts/discover when the request has no body."""


@dataclass
class UploadOperation(Operation):
    """OpenAPI description of the upload form, written by hand because the handler reads the form itself."""

    def __post_init__(self) -> None:
        prompt_id = Schema(
            type=OpenAPIType.STRING, pattern=f"^{ID.pattern}$", description="Identifier of the audio prompt"
        )
        fields = {"prompt_id": prompt_id, FILE_FIELD: forms.RECORDING, "transcript": forms.TRANSCRIPT}
        self.request_body = forms.form_body(fields, ["prompt_id", FILE_FIELD])


class PromptController(Controller):
    path = "/audio_prompts"
    tags = ["Audio prompts"]

    @post(
        "/upload",
        status_code=200,
        request_max_body_size=MAX_AUDIO,
        operation_class=UploadOperation,
        opt=route_options(rate_limit="upload", errors=(400, 409, 413, 415, 422, 429, 500, 503)),
    )
    async def upload_audio_prompt(
        self,
        request: Request[Any, Any, Any],
        spool: NamedDependency[Spool],
        prompt_service: NamedDependency[PromptService],
        transcript_service: NamedDependency[TranscriptService],
        client_address: NamedDependency[ClientAddress],
        upload_limit: NamedDependency[ConcurrencyLimit],
    ) -> AudioPromptUploaded:
        """Add or replace an audio prompt; the recording is converted to mono, 44.1 kHz, peak 0.95."""
        with upload_limit.hold(client_address(request.scope)):
            async with upload.receive(request, FILE_FIELD, spool.spool) as form:
                prompt_id = forms.require(form.fields, "prompt_id").strip()
                transcript = forms.transcript_in(form.fields)
                with forms.naming_field(FILE_FIELD):
                    prompt = await prompt_service.add(prompt_id, form.file, transcript)
        prompt = await transcript_service.ensure_transcript(prompt)
        return AudioPromptUploaded(
            message="Audio prompt uploaded successfully",
            prompt_id=prompt.prompt_id,
            file_path=file_path(prompt),
            duration=round(prompt.duration, 3),
            sample_rate=prompt.sample_rate,
            transcript=prompt.transcript,
            needs_review=prompt.needs_review,
            note=transcript_service.note(prompt),
        )

    @get()
    async def list_audio_prompts(self, prompt_service: NamedDependency[PromptService]) -> AudioPrompts:
        """List the audio prompts."""
        return AudioPrompts(
            [
                AudioPrompt(
                    prompt_id=prompt.prompt_id,
                    file_path=file_path(prompt),
                    duration=round(prompt.duration, 3),
                    sample_rate=prompt.sample_rate,
                )
                for prompt in prompt_service.all.values()
            ]
        )

    @get("/metadata")
    async def list_audio_prompt_metadata(
        self,
        prompt_service: NamedDependency[PromptService],
        transcript_service: NamedDependency[TranscriptService],
    ) -> AudioPromptsMetadata:
        """List the audio prompts with transcript, file size and creation time."""
        return AudioPromptsMetadata(
            [_metadata(prompt, transcript_service) for prompt in prompt_service.all.values()]
        )

    @get("/metadata/{prompt_id:str}", opt=route_options(errors=(404,)))
    async def get_audio_prompt_metadata(
        self,
        prompt_id: FromPath[str],
        prompt_service: NamedDependency[PromptService],
        transcript_service: NamedDependency[TranscriptService],
    ) -> AudioPromptMetadata:
        """Get an audio prompt with transcript, file size and creation time."""
        return _metadata(prompt_service.get(prompt_id), transcript_service)

    @get("/{prompt_id:str}/audio", media_type="audio/wav", opt=route_options(errors=(404, 503)))
    async def get_audio_prompt(
        self, prompt_id: FromPath[str], prompt_service: NamedDependency[PromptService]
    ) -> Stream:
        """Download the recording of an audio prompt."""
        size, audio = await prompt_service.recording(prompt_id)
        return Stream(audio, headers={"Content-Length": str(size)})

    @delete("/{prompt_id:str}", status_code=200, opt=route_options(errors=(404, 409, 503)))
    async def delete_audio_prompt(
        self, prompt_id: FromPath[str], prompt_service: NamedDependency[PromptService]
    ) -> AudioPromptDeleted:
        """Delete an audio prompt and its files; 409 while a voice mapping uses it."""
        await prompt_service.delete(prompt_id)
        return AudioPromptDeleted(f"Audio prompt '{prompt_id}' deleted", prompt_id)

    @post("/discover", status_code=200, opt=route_options(errors=(400, 413, 415, 422, 503)))
    async def discover_audio_prompts(
        self,
        transcript_service: NamedDependency[TranscriptService],
        data: JSONBody[DiscoverRequest] = DISCOVER,
    ) -> Discovered:
        """Read the folder of audio prompts again: add and update prompts; remove those without a usable file.

        Files in other formats than WAV are converted. Prompts without a transcript are transcribed if
        `auto_transcribe` is on or `force_retranscribe` is true. `force_retranscribe` also replaces
        transcripts by Whisper with new ones.
        """
        found = await transcript_service.discover(force_retranscribe=data.force_retranscribe)
        return Discovered(
            "Audio prompt discovery completed",
            found.total,
            [
                DiscoveredPrompt(prompt.prompt_id, file_path(prompt), prompt.transcript, prompt.needs_review)
                for prompt in found.changed
            ],
            [SkippedFile(f"audio_prompts/{skip.file_name}", skip.reason) for skip in found.skipped],
        )


def file_path(prompt: Prompt) -> str:
    """Return the path of the prompt's WAV file, relative to the data folder."""
    return f"audio_prompts/{wav_name(prompt.prompt_id)}"


def _metadata(prompt: Prompt, transcripts: TranscriptService) -> AudioPromptMetadata:
    confidence = prompt.confidence
    return AudioPromptMetadata(
        prompt_id=prompt.prompt_id,
        file_path=file_path(prompt),
        duration=round(prompt.duration, 3),
        sample_rate=prompt.sample_rate,
        transcript=prompt.transcript,
        transcript_source="pending" if transcripts.is_pending(prompt) else prompt.transcript_source,
        file_size=prompt.file_size,
        created_at=prompt.created_at,
        needs_review=prompt.needs_review,
        note=transcripts.note(prompt),
        confidence=None if confidence is None else TranscriptConfidence(**asdict(confidence)),
    )
