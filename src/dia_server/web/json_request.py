"""Request bodies, decoded strictly."""

from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import ClientException, HTTPException, ValidationException
from litestar.types import Empty


class UnsupportedMediaType(HTTPException):
    status_code = 415


class JSONRequest(Request[Any, Any, Any]):
    """A request whose JSON body has the very types that are documented.

    Litestar by itself takes "1.5" for a number and 0 for a bool, and any Content-Type for JSON: with
    text/plain, any web page could make a visitor's browser post to a server in their network.
    """

    async def json(self) -> Any:
        if self._json is Empty:
            self._json = self._connection_state.json = self._decode(await self.body())
        return self._json

    def _decode(self, body: bytes) -> Any:
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMediaType(f"The body must be application/json, not {media_type or 'untyped'}")
        expected = self.route_handler.parsed_data_field
        assert expected is not None
        try:
            return msgspec.json.decode(body, type=expected.annotation)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at ")
            field = path.strip("`").removeprefix("$").removeprefix(".")
            raise ValidationException(extra=[{"message": message, "key": field or "data"}]) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ClientException(f"The body is not valid JSON: {error}") from None
        except RecursionError:
            raise ClientException("The body is nested too deeply") from None
