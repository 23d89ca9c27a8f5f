"""Lets a handler tell the middleware that it no longer holds a large body in memory."""

from typing import Any

from litestar.types import Scope

RELEASE = "dia_server.release_body"
"""Key, in the ASGI scope, of the function that stops counting the body."""


def release(scope: Scope) -> None:
    """Stop counting the request's body as held; call it once the body's large fields are dropped."""
    extended: dict[str, Any] = scope  # type: ignore[assignment]
    if stop := extended.get(RELEASE):
        stop()
