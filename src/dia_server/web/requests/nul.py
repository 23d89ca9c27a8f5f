"""Rejects NUL characters, which end C strings and which PostgreSQL cannot store."""

from collections.abc import Iterator
from typing import Any

import msgspec
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from dia_server.errors import BadRequest, Invalid

NUL = "\x00"


class NoNulInPath(ASGIMiddleware):
    """Answers 400 to requests whose path contains %00."""

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        if NUL in scope["path"]:
            raise BadRequest("The URL contains a NUL character (%00)")
        await next_app(scope, receive, send)


def check(field: str, text: str) -> None:
    """Raise Invalid if `text` contains a NUL character."""
    if NUL in text:
        raise Invalid(f"{field}: a NUL character is not allowed", param=field)


def check_all(value: Any) -> None:
    """Raise Invalid for the first string in a decoded body that contains a NUL character."""
    for field, text in _strings(msgspec.to_builtins(value), ""):
        check(field, text)


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield path, value
        case dict():
            for name, item in value.items():
                yield from _strings(item, f"{path}.{name}" if path else name)
        case list():
            for item in value:
                yield from _strings(item, f"{path}[...]")
