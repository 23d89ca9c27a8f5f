"""Errors of the API, with their status and `error_code`.

ServerError
├── BadRequest             400  BAD_REQUEST
├── Unauthorized           401  UNAUTHORIZED
├── Forbidden              403  FORBIDDEN
├── NotFound               404  NOT_FOUND
├── InvalidVoiceId         404  INVALID_VOICE_ID
├── Conflict               409  CONFLICT
├── JobNotComplete         409  JOB_NOT_COMPLETE
├── PayloadTooLarge        413  PAYLOAD_TOO_LARGE
├── MisdirectedRequest     421  MISDIRECTED_REQUEST
├── Invalid                422  VALIDATION_ERROR
├── TextTooLong            422  TEXT_TOO_LONG
├── PromptNotUsable        422  AUDIO_PROMPT_NOT_USABLE
├── RateLimitExceeded      429  RATE_LIMIT_EXCEEDED
├── GenerationFailed       500  GENERATION_FAILED
│   └── UnspeakableText    422  GENERATION_FAILED
├── AudioProcessingError   500  AUDIO_PROCESSING_ERROR
│   └── UnusableAudio      422  AUDIO_PROCESSING_ERROR
├── ModelNotLoaded         503  MODEL_NOT_LOADED
├── EngineLost             503  ENGINE_LOST
├── WhisperNotAvailable    503  WHISPER_NOT_AVAILABLE
├── Overloaded             503  SERVER_OVERLOADED
├── StorageUnavailable     503  STORAGE_UNAVAILABLE
└── GpuOutOfMemory         503  GPU_OUT_OF_MEMORY

Any other exception is a bug and is answered with 500 INTERNAL_SERVER_ERROR.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class ServerError(Exception):
    status = 500
    code = "INTERNAL_SERVER_ERROR"
    nothing_begun = False
    """Whether the request certainly began nothing, so that another server may be asked instead."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        limit: float | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Create an error for clients.

        `param` names the request field at fault. `limit` is the maximum or minimum that the field or the
        request violates. `retry_after` is the number of seconds to wait before a retry.
        """
        super().__init__(message)
        self.param = param
        self.limit = limit
        self.retry_after = retry_after


@contextmanager
def nothing_begun() -> Iterator[None]:
    """Mark a ServerError that the `with` block raises: the request has begun nothing yet."""
    try:
        yield
    except ServerError as error:
        error.nothing_begun = True
        raise


class BadRequest(ServerError):
    status, code = 400, "BAD_REQUEST"


class Unauthorized(ServerError):
    status, code = 401, "UNAUTHORIZED"


class Forbidden(ServerError):
    """The operator's settings do not allow this request."""

    status, code = 403, "FORBIDDEN"


class NotFound(ServerError):
    status, code = 404, "NOT_FOUND"


class InvalidVoiceId(ServerError):
    status, code = 404, "INVALID_VOICE_ID"


class Conflict(ServerError):
    status, code = 409, "CONFLICT"


class JobNotComplete(ServerError):
    status, code = 409, "JOB_NOT_COMPLETE"


class PayloadTooLarge(ServerError):
    status, code = 413, "PAYLOAD_TOO_LARGE"


class MisdirectedRequest(ServerError):
    """The request's Host header is not an allowed name of this server."""

    status, code = 421, "MISDIRECTED_REQUEST"


class Invalid(ServerError):
    status, code = 422, "VALIDATION_ERROR"


class TextTooLong(ServerError):
    status, code = 422, "TEXT_TOO_LONG"


class PromptNotUsable(ServerError):
    """The voice's audio prompt is missing, was changed, or has no transcript."""

    status, code = 422, "AUDIO_PROMPT_NOT_USABLE"


class RateLimitExceeded(ServerError):
    status, code = 429, "RATE_LIMIT_EXCEEDED"


class GenerationFailed(ServerError):
    """The generation failed for a reason that has no error class of its own."""

    status, code = 500, "GENERATION_FAILED"


class UnspeakableText(GenerationFailed):
    """On the client's text, the preview's synthesizer fails, crashes or exceeds its time or memory limit."""

    status = 422


class AudioProcessingError(ServerError):
    status, code = 500, "AUDIO_PROCESSING_ERROR"


class UnusableAudio(AudioProcessingError):
    """The uploaded audio is invalid; the client must change it."""

    status = 422


class ModelNotLoaded(ServerError):
    status, code = 503, "MODEL_NOT_LOADED"


class EngineLost(ServerError):
    status, code = 503, "ENGINE_LOST"


class WhisperNotAvailable(ServerError):
    status, code = 503, "WHISPER_NOT_AVAILABLE"


class Overloaded(ServerError):
    status, code = 503, "SERVER_OVERLOADED"


class StorageUnavailable(ServerError):
    """The disk or the database cannot be read or written at present; a retry may succeed."""

    status, code = 503, "STORAGE_UNAVAILABLE"


class ObjectStoreUnavailable(StorageUnavailable):
    """The object storage (DIA_STORAGE) does not answer, or refuses; work that needs it can wait for it."""


class GpuOutOfMemory(ServerError):
    status, code = 503, "GPU_OUT_OF_MEMORY"
