"""Cross-origin requests: refuses disallowed hosts and origins, answers preflights, adds CORS headers.

An ASGI wrapper, because Litestar's own middleware does not run for 404 and 405.
"""

from typing import Any

import structlog
from litestar import Request
from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from dia_server.errors import Forbidden, MisdirectedRequest, ServerError
from dia_server.web.errors import render_error
from dia_server.web.middleware.hosts import Hosts
from dia_server.web.middleware.origins import Origins

log = structlog.get_logger()

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
EXPOSED_HEADERS = [
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "Retry-After",
    "X-Should-Retry",
    "X-Request-ID",
    "X-Engine",
    "X-Seed",
    "X-Retries",
    "X-Faults",
    "X-Warnings",
]
METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
PREFLIGHT_AGE_S = 600
"""Seconds that browsers may cache a preflight response."""
MAX_SHOWN = 100
"""Maximum characters of a header's value that errors and the log quote."""
REFUSED = 4403
"""Close code of a refused WebSocket if the HTTP server cannot answer its handshake with an HTTP response."""


class CrossOrigin:
    """Answers 421 to a disallowed Host header; if `hosts` is None, all are allowed.

    A disallowed origin is answered with 403 if the request is a preflight or a WebSocket, or if its method is
    not in SAFE_METHODS. Its other requests are served, without CORS headers. Preflights of allowed origins
    are answered here.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts | None, origins: Origins) -> None:
        self._app = app
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers.from_scope(scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        allowed = origin is not None and await self._origins.allow(origin, host)
        send = self._sender(send, origin if allowed else None)

        if self._hosts is not None and not await self._hosts.accepts(host):
            words = f"The host name {host[:MAX_SHOWN]!r} is not allowed; add it to DIA_ALLOWED_HOSTS"
            await _refuse(scope, receive, send, MisdirectedRequest(words))
            return

        preflight = _is_preflight(scope, headers)
        changes = scope["type"] == ScopeType.WEBSOCKET or scope["method"] not in SAFE_METHODS
        if (preflight or changes) and not (allowed if origin is not None else self._is_from_here(headers)):
            page = "A page of another site" if origin is None else f"A page of {origin[:MAX_SHOWN]!r}"
            words = f"{page} may not call this server; add its origin to DIA_CORS_ORIGINS"
            await _refuse(scope, receive, send, Forbidden(words))
        elif preflight:
            await _preflight_answer(headers)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_from_here(self, headers: Headers) -> bool:
        """Return whether a request without an Origin header is allowed.

        True if all origins are allowed, or if Sec-Fetch-Site is absent, `none` or `same-origin`. Browsers
        send `same-site` or `cross-site` for a page of another origin.
        """
        return self._origins.all or headers.get("sec-fetch-site", "none") in {"none", "same-origin"}

    def _sender(self, send: Send, origin: str | None) -> Send:
        """Return `send` with CORS headers that let pages of `origin` read the response.

        If all origins are allowed, every page may read it. Otherwise, no page may if `origin` is None.
        """

        async def send_with_headers(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                headers = MutableScopeHeaders.from_message(message)
                if not self._origins.all:
                    headers.extend_header_value("Vary", "Origin")
                if self._origins.all or origin is not None:
                    headers["Access-Control-Allow-Origin"] = "*" if self._origins.all else str(origin)
                    headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED_HEADERS)
            await send(message)

        return send_with_headers


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    return (
        scope["type"] == ScopeType.HTTP
        and scope["method"] == "OPTIONS"
        and "origin" in headers
        and "access-control-request-method" in headers
    )


def _preflight_answer(headers: Headers) -> ASGIResponse:
    answer = {"Access-Control-Allow-Methods": METHODS, "Access-Control-Max-Age": str(PREFLIGHT_AGE_S)}
    if wanted := headers.get("access-control-request-headers"):  # echoed: `*` does not cover Authorization
        answer["Access-Control-Allow-Headers"] = wanted
    return ASGIResponse(status_code=204, headers=answer)


async def _refuse(scope: Scope, receive: Receive, send: Send, error: ServerError) -> None:
    log.warning("request refused", cause=str(error))
    request = Request[Any, Any, Any](scope)
    answer = render_error(request, error).to_asgi_response(None, request)
    if scope["type"] == ScopeType.HTTP:
        await answer(scope, receive, send)
        return

    async def send_in_handshake(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})  # type: ignore[arg-type]

    await receive()  # "websocket.connect"
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await answer(scope, receive, send_in_handshake)
    else:
        await send({"type": "websocket.close", "code": REFUSED, "reason": str(error)})
