"""Converts bodies of routes and of the WebSocket to requests for the speech service."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import msgspec
from litestar.types import Scope
from msgspec import UNSET

from dia_server.errors import Invalid, ServerError
from dia_server.services.speech.dialogue import dialogue_text
from dia_server.services.speech.request import AudioFormat, SpeechRequest
from dia_server.services.voices.references import Reference, References
from dia_server.web import forms
from dia_server.web.requests import held_body
from dia_server.web.schemas import DialogueInput, DialogueRequest, GenerateRequest
from dia_server.web.schemas import SpeechRequest as OpenAISpeechRequest

DEFAULT_VOICE = "aria"
ELSEWHERE = ("stream", "ref_audio", "ref_text", "use_torch_compile")
"""Fields that are not part of a SpeechRequest; `use_torch_compile` has no effect."""
NORMALIZE = {"on": True, "off": False}
"""What `normalize` is for ElevenLabs' `apply_text_normalization`."""
OUTPUT_FORMAT = re.compile(r"(mp3|opus|wav|pcm)_[0-9]{4,6}(?:_[0-9]{2,3})?")
"""ElevenLabs' name of a format: its codec, sample rate and bit rate."""
PCM = "pcm_24000"
"""The only format of samples without a header, which would tell another rate."""


def speech_request(data: GenerateRequest | DialogueRequest) -> SpeechRequest:
    """Return `data` as a SpeechRequest.

    The voice of a text is `voice_id`, else `voice`, else DEFAULT_VOICE; that of a dialogue is the first one.
    Raises Invalid or InvalidVoiceId for a turn of a dialogue without a voice.
    """
    fields = msgspec.structs.asdict(data)
    for name in ELSEWHERE:
        del fields[name]
    if isinstance(data, DialogueRequest):
        return _dialogue(fields)
    alias = fields.pop("voice")
    if fields["voice_id"] is UNSET:
        fields["voice_id"] = DEFAULT_VOICE if alias is None else alias
    return SpeechRequest(**fields)


def audio_format(output_format: str) -> AudioFormat:
    """Return our format for one of ElevenLabs' names of formats; raises Invalid."""
    if match := OUTPUT_FORMAT.fullmatch(output_format):
        codec: AudioFormat = cast(AudioFormat, match[1])
        if codec != "pcm" or output_format == PCM:
            return codec
    raise Invalid(
        f"output_format: {output_format!r} is not available; it must be mp3, opus or wav with any sample and "
        f"bit rate, such as mp3_44100_128, or {PCM}",
        param="output_format",
    )


@contextmanager
def naming_inputs(data: object) -> Iterator[None]:
    """Name `inputs` in errors about text and voice that the `with` block raises, if `data` is a dialogue."""
    try:
        yield
    except ServerError as error:
        if isinstance(data, DialogueRequest) and error.param in {"text", "voice_id"}:
            error.param = "inputs"
        raise


async def take_reference(
    data: GenerateRequest | DialogueRequest | OpenAISpeechRequest, references: References, scope: Scope
) -> Reference | None:
    """Resolve the reference in `data`, and remove its text, up to 14 MB, which would stay in memory.

    Raises as `References.resolve`.
    """
    audio, data.ref_audio = data.ref_audio, None
    with forms.naming_field("ref_audio"):
        reference = await references.resolve(audio, data.ref_text)
    held_body.release(scope)
    return reference


def _dialogue(fields: dict[str, Any]) -> SpeechRequest:
    """Return a dialogue as a text with voice tags, each on a line above its turn."""
    inputs: list[DialogueInput] = fields.pop("inputs")
    normalize = NORMALIZE.get(fields.pop("apply_text_normalization"))
    if fields["normalize"] is None:
        fields["normalize"] = normalize
    voices = [one.voice if one.voice_id is None else one.voice_id for one in inputs]
    text = dialogue_text([(voice, one.text) for voice, one in zip(voices, inputs, strict=True)])
    return SpeechRequest(text=text, voice_id=voices[0] or "", turn_by_turn=True, **fields)
