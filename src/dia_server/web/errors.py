"""Renders exceptions as responses, in the native format or in OpenAI's."""

from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException
from msgspec import UNSET, Struct

from dia_server.errors import Conflict, ServerError
from dia_server.web.requests.json_body import bound_in, name_choices
from dia_server.web.schemas import Error, OpenAIError, OpenAIErrorDetail

log = structlog.get_logger()

CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "VALIDATION_ERROR",
}
OPENAI_FIELDS = {"text": "input", "voice_id": "voice"}
"""Names of fields on the OpenAI-compatible routes, by their names on the native routes."""
ONCE_MORE = "@once_more"
"""nginx's location for refused requests, named by deploy/nginx-servers.conf in the header X-Dia-Refused."""
OPENAI_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class Failure(Struct):
    """Status and content of an error response, independent of its format."""

    status: int
    code: str
    message: str
    param: str | None = None
    limit: float | None = None


def classify(exc: Exception) -> Failure:
    match exc:
        case ServerError():
            return Failure(exc.status, exc.code, str(exc), exc.param, exc.limit)
        case ValidationException():
            return _validation(exc)
        case UnicodeDecodeError():  # Litestar does not convert it to an HTTPException
            return Failure(400, "BAD_REQUEST", "The request is not valid UTF-8")
        case HTTPException():
            status = HTTPStatus(exc.status_code)
            detail = exc.detail if exc.detail != status.phrase else f"{status.phrase}: {status.description}"
            return Failure(exc.status_code, CODES.get(status, status.name), detail)
    return Failure(500, "INTERNAL_SERVER_ERROR", "Internal server error; the log has the cause")


def _validation(exc: ValidationException) -> Failure:
    first: dict[str, str] = exc.extra[0] if isinstance(exc.extra, list) and exc.extra else {}
    message, field = first.get("message", exc.detail), first.get("key")
    if field in {None, "data"}:  # "data" is Litestar's name for the whole body
        message = "A request body is required" if message == "'data'" else message
        return Failure(422, "VALIDATION_ERROR", message)
    return Failure(422, "VALIDATION_ERROR", f"{field}: {message}", field, bound_in(message))


def render_error(request: Request[Any, Any, Any], exc: Exception) -> Response[Error | OpenAIError]:
    """Return the response for `exc`, in OpenAI's format on paths below /v1, else in the native format."""
    failure = classify(exc)
    if isinstance(exc, ValidationException) and failure.param is not None:
        failure.message += _choices_of_parameter(request, failure.param)
    if failure.code == "INTERNAL_SERVER_ERROR":
        log.error("request failed", exc_info=exc)
    headers: dict[str, str] = dict(getattr(exc, "headers", None) or {})
    if "allow" in headers:  # Litestar's 405 lists only methods with handlers, so not HEAD
        headers["allow"] = allow(headers["allow"].split(", "))
    return Response(
        _openai(failure) if request.scope["path"].startswith("/v1/") else _native(failure),
        status_code=failure.status,
        headers={**headers, **retry_headers(failure.status, exc), **_proxy_headers(request, exc)},
        media_type=MediaType.JSON,
    )


def _choices_of_parameter(request: Request[Any, Any, Any], name: str) -> str:
    parameter = request.route_handler.parsed_fn_signature.parameters.get(name)
    return "" if parameter is None else name_choices(parameter.annotation)


def retry_headers(status: int, exc: Exception) -> dict[str, str]:
    """Return Retry-After if `exc` has `retry_after`, and x-should-retry, which OpenAI's SDKs obey.

    For 5xx, x-should-retry is "true" with `retry_after` and "false" without. For a Conflict it is "false",
    because the SDKs would send the request, which may be an upload, three times.
    """
    retry_after: int | None = getattr(exc, "retry_after", None)
    if retry_after is None:
        return {"x-should-retry": "false"} if status >= 500 or isinstance(exc, Conflict) else {}
    retries = {"x-should-retry": "true"} if status >= 500 else {}
    return {"Retry-After": str(retry_after), **retries}


def _proxy_headers(request: Request[Any, Any, Any], exc: Exception) -> dict[str, str]:
    """Return X-Accel-Redirect if the request began nothing and its proxy can ask another server."""
    if getattr(exc, "nothing_begun", False) and request.headers.get("X-Dia-Refused") == ONCE_MORE:
        return {"X-Accel-Redirect": ONCE_MORE}
    return {}


def allow(methods: Iterable[str]) -> str:
    """Return the value of `Allow` for a path with handlers for `methods`; GET implies HEAD."""
    return ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))


def _native(failure: Failure) -> Error:
    return Error(
        failure.message,
        failure.code,
        datetime.now(UTC),
        param=UNSET if failure.param is None else failure.param,
        limit=UNSET if failure.limit is None else failure.limit,
    )


def _openai(failure: Failure) -> OpenAIError:
    kind = "server_error" if failure.status >= 500 else "invalid_request_error"
    detail = OpenAIErrorDetail(
        message=failure.message,
        type=OPENAI_TYPES.get(failure.status, kind),
        param=OPENAI_FIELDS.get(failure.param or "", failure.param),
        code=failure.code.lower(),
        limit=UNSET if failure.limit is None else failure.limit,
    )
    return OpenAIError(detail, failure.message, failure.code, datetime.now(UTC))
