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
            self._json = self._connection_state.json = decode(await self.body(), expected.annotation)
        return self._json

    async def stream(self) -> AsyncGenerator[bytes]:
        try:
            async for part in super().stream():
                yield part
        except RequestEntityTooLarge:
            limit = self.route_handler.resolve_request_max_body_size()
            raise PayloadTooLarge(
                f"The body is too large: the limit is {limit:,} bytes", limit=limit
            ) from None
        except InternalServerException:  # raised by Litestar on http.disconnect
            raise BadRequest("The body is incomplete, or its chunked encoding is malformed") from None

    def _check_media_type(self) -> None:
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMediaType(f"The body must be application/json, not {media_type or 'untyped'}")
