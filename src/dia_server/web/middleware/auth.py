"""API keys: bearer authentication of requests and WebSockets."""

import hmac
from collections.abc import Callable
from urllib.parse import parse_qs

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from dia_server.errors import RateLimitExceeded, Unauthorized
from dia_server.services.server import MinuteCounts
from dia_server.web.route_options import options_of

MAX_WRONG_KEYS = 20
"""Maximum wrong keys per minute and client address; further ones are answered with 429."""


class ApiKeys(ASGIMiddleware):
    """Requires `Authorization: Bearer <key>` if there are `keys`, except on `public` routes."""

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET)

    def __init__(self, keys: tuple[str, ...], client_address: Callable[[Scope], str]) -> None:
        self._keys = [key.encode() for key in keys]
        self._client_address = client_address
        self._wrong = MinuteCounts()

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        if self._keys and not options_of(scope["route_handler"]).get("public", False):
            self._check(scope)
        await next_app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raise Unauthorized for a missing or wrong key, RateLimitExceeded after MAX_WRONG_KEYS wrong keys.

        A valid key always passes, even after too many wrong keys, because many clients may share one address.
        """
        scheme, _, token = authorization(scope).partition(" ")
        given = token.strip().encode() if scheme.lower() == "bearer" else b""
        if not given:
            raise Unauthorized("An API key is required: Authorization: Bearer <key>, or xi-api-key: <key>")
        # compare every key, each in constant time, so that the response time reveals nothing
        if sum(hmac.compare_digest(given, key) for key in self._keys):
            return
        count = self._wrong.add(self._client_address(scope))
        if count.value > MAX_WRONG_KEYS:
            failure = RateLimitExceeded(
                f"Too many wrong API keys: the limit is {MAX_WRONG_KEYS} a minute per address; "
                f"try again in {count.wait_s} s",
                limit=MAX_WRONG_KEYS,
                retry_after=count.wait_s,
            )
            failure.headers = {"x-should-retry": "false"}  # type: ignore[attr-defined]  # a retry sends the same wrong key
            raise failure
        raise Unauthorized("The API key is wrong")


def authorization(scope: Scope) -> str:
    """Return the Authorization header, "" if there is none.

    Without it, return `Bearer ` and the key in the header `xi-api-key`, which ElevenLabs' clients send. For a
    WebSocket without both, return the query parameter `api_key`, because browsers cannot set headers there.
    """
    headers = Headers.from_scope(scope)
    header = headers.get("authorization", "")
    if not header and (key := headers.get("xi-api-key")):
        return f"Bearer {key}"
    if header or scope["type"] != ScopeType.WEBSOCKET:
        return header
    (key,) = parse_qs(scope["query_string"].decode("latin-1")).get("api_key", [""])[-1:]
    return f"Bearer {key}"
