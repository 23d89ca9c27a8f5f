"""Routes of transcripts and of Whisper, which generates them."""

from litestar import Controller, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.prompt_folder import txt_name
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.transcripts import TranscriptService
from dia_server.services.voices.whisper import Whisper
from dia_server.web.route_options import route_options
from dia_server.web.schemas import TranscriptRequest, TranscriptSaved, WhisperLoaded, WhisperStatus


class WhisperController(Controller):
    tags = ["Whisper"]

    @post(
        "/audio_prompts/{prompt_id:str}/transcribe",
        status_code=200,
        opt=route_options(errors=(404, 409, 422, 503)),
    )
    async def transcribe_audio_prompt(
        self, prompt_id: FromPath[str], transcript_service: NamedDependency[TranscriptService]
    ) -> TranscriptSaved:
        """Transcribe an audio prompt with Whisper, replacing its transcript.

        A transcript of which Whisper is not sure is a draft (`needs_review`) until PUT confirms it.
        """
        prompt = await transcript_service.transcribe(prompt_id)
        return _saved("Transcription completed", prompt, transcript_service.note(prompt))

    @put(
        "/audio_prompts/{prompt_id:str}/transcript",
        opt=route_options(errors=(400, 404, 409, 413, 415, 422, 503)),
    )
    async def set_transcript(
        self,
        prompt_id: FromPath[str],
        data: JSONBody[TranscriptRequest],
        prompt_service: NamedDependency[PromptService],
    ) -> TranscriptSaved:
        """Set the transcript of an audio prompt to the exact words of the recording.

        This also confirms a draft by Whisper (`needs_review`).
        """
        prompt = prompt_service.get(prompt_id)
        return _saved(
            "Transcript updated", await prompt_service.set_transcript(prompt, data.transcript, "manual"), None
        )

    @get("/whisper/status")
    async def whisper_status(
        self, whisper: NamedDependency[Whisper], transcript_service: NamedDependency[TranscriptService]
    ) -> WhisperStatus:
        """Get the availability and configuration of Whisper."""
        problem = await whisper.problem()
        return WhisperStatus(
            available=problem is None,
            model_loaded=whisper.loaded,
            model_size=whisper.model_size,
            auto_transcribe=transcript_service.auto_transcribe,
            device=whisper.device or "auto",
            error=problem,
        )

    @post("/whisper/load", status_code=200, opt=route_options(errors=(503,)))
    async def load_whisper(self, whisper: NamedDependency[Whisper]) -> WhisperLoaded:
        """Load or reload the Whisper model, downloading it if necessary."""
        size, device = await whisper.load()
        return WhisperLoaded("Whisper model loaded successfully", size, device)


def _saved(message: str, prompt: Prompt, note: str | None) -> TranscriptSaved:
    assert prompt.transcript is not None
    return TranscriptSaved(
        message=message,
        prompt_id=prompt.prompt_id,
        transcript=prompt.transcript,
        saved_to=None if prompt.needs_review else f"audio_prompts/{txt_name(prompt.prompt_id)}",
        needs_review=prompt.needs_review,
        note=note,
    )
