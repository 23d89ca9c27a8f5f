"""Litestar's request class with strict JSON bodies."""

from collections.abc import AsyncGenerator
from typing import Any

from litestar import Request
from litestar.exceptions import HTTPException, InternalServerException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.types import Empty

from dia_server.errors import BadRequest, PayloadTooLarge
from dia_server.units import MIB
from dia_server.web.requests.json_body import decode

MAX_BODY = MIB
"""Maximum bytes of a JSON body; the longest text (80,000 characters, each escaped) takes 938 KiB."""
REFERENCE = "ref_audio"
"""Name of the field that holds a recording; its content does not count in MAX_BODY."""
MAX_BODY_WITH_REFERENCE = MAX_BODY + 14 * MIB
"""Maximum bytes of a JSON body on routes with that field: 10 MiB take 13.4 MiB as base64."""


class UnsupportedMediaType(HTTPException):
    status_code = 415


class JSONRequest(Request[Any, Any, Any]):
    """Requires application/json and exact types.

    Litestar converts "1.5" to a number and 0 to a bool, and accepts any Content-Type. Browsers send
    text/plain without a preflight, so if it were accepted, any web page could post to a server in its
    visitor's network.
    """

    async def json(self) -> Any:
        if self._json is Empty:
            self._check_media_type()
            expected = self.route_handler.parsed_data_field
            assert expected is not None
            self._json = self._connection_state.json = _decode(await self.body(), expected.annotation)
            self._body = self._connection_state.body = b""  # a reference must not be in memory twice
        return self._json

    async def stream(self) -> AsyncGenerator[bytes]:
        try:
            async for part in super().stream():
                yield part
        except RequestEntityTooLarge:
            limit = self.route_handler.resolve_request_max_body_size()
            raise _too_large(limit or MAX_BODY) from None
        except InternalServerException:  # raised by Litestar on http.disconnect
            raise BadRequest("The body is incomplete, or its chunked encoding is malformed") from None

    def _check_media_type(self) -> None:
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMediaType(f"The body must be application/json, not {media_type or 'untyped'}")


def _decode(body: bytes, expected: Any) -> Any:
    """Decode a body.

    Raises as `json_body.decode`, and PayloadTooLarge if the body has more than MAX_BODY besides a reference.
    """
    if len(body) > MAX_BODY and f'"{REFERENCE}"'.encode() not in body:
        raise _too_large(MAX_BODY)
    decoded = decode(body, expected)
    if len(body) - len(getattr(decoded, REFERENCE, None) or "") > MAX_BODY:
        raise _too_large(MAX_BODY)
    return decoded


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is too large: the limit is {limit:,} bytes", limit=limit)
