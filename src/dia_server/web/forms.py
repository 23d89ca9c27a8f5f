"""Multipart forms with a recording: their OpenAPI description, and their fields."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from litestar.openapi.spec import OpenAPIMediaType, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType

from dia_server.errors import Invalid, UnusableAudio
from dia_server.web.schemas import MAX_TRANSCRIPT

RECORDING = Schema(
    type=OpenAPIType.STRING,
    format=OpenAPIFormat.BINARY,
    description="WAV, MP3, FLAC, OGG, M4A or WebM with 0.5 to 60 s of speech; 5 to 10 s work best",
)
TRANSCRIPT = Schema(
    type=OpenAPIType.STRING, description="Exact words of the recording; default: transcribed by Whisper"
)


def form_body(fields: dict[str, Schema], required: list[str]) -> RequestBody:
    """Return the description of a form, which handlers that read it themselves need."""
    form = Schema(type=OpenAPIType.OBJECT, properties={**fields}, required=required)
    return RequestBody(content={"multipart/form-data": OpenAPIMediaType(schema=form)}, required=True)


@contextmanager
def naming_field(field: str) -> Iterator[None]:
    """Name `field` in an UnusableAudio that the `with` block raises."""
    try:
        yield
    except UnusableAudio as error:
        raise UnusableAudio(f"{field}: {error}", param=field, limit=error.limit) from error


def require(fields: Mapping[str, str], name: str) -> str:
    if (value := fields.get(name)) is None:
        raise Invalid(f"{name} is required", param=name)
    return value


def transcript_in(fields: Mapping[str, str], name: str = "transcript") -> str | None:
    """Return the transcript in the field `name`, None if it is blank; raises Invalid if it is too long."""
    transcript = fields.get(name, "").strip() or None
    if transcript is not None and len(transcript) > MAX_TRANSCRIPT:
        raise Invalid(
            f"{name}: too long; the limit is {MAX_TRANSCRIPT:,} characters", param=name, limit=MAX_TRANSCRIPT
        )
    return transcript
