"""Rate limits: fixed windows of a minute with a bucket per limit and client address.

Hand-written because Litestar's middleware does not limit WebSocket messages, and does not send the end of a
window as Unix time, as `X-RateLimit-Reset` does here.
"""

from collections.abc import Callable, Mapping

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from dia_server.errors import RateLimitExceeded
from dia_server.services.server import RequestCounts
from dia_server.web.route_options import LimitName, options_of

SETTINGS: dict[LimitName, str] = {
    "generate": "DIA_RATE_LIMIT_GENERATE",
    "jobs": "DIA_RATE_LIMIT_JOBS",
    "plan": "DIA_RATE_LIMIT_JOBS",
    "upload": "DIA_RATE_LIMIT_UPLOAD",
}
"""Environment variable that sets each limit; the error for a request beyond the limit names it."""


class RateLimit(ASGIMiddleware):
    """Limits requests to routes with the option `rate_limit`, the name of a limit.

    `limits` has the maximum requests per minute and client address by name; 0: unlimited.
    """

    scopes = (ScopeType.HTTP,)

    def __init__(
        self,
        limits: Mapping[LimitName, int],
        client_address: Callable[[Scope], str],
        counts: RequestCounts,
    ) -> None:
        self._limits = limits
        self._client_address = client_address
        self._counts = counts

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        headers = await self.consume(options_of(scope["route_handler"]).get("rate_limit"), scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableScopeHeaders.from_message(message).update(headers)
            await send(message)

        await next_app(scope, receive, send_with_headers if headers else send)

    async def consume(self, name: LimitName | None, scope: Scope) -> dict[str, str]:
        """Count a request against the limit `name` and return the X-RateLimit headers; {} without a limit.

        Raises RateLimitExceeded, with the same headers, if the client has used up the limit.
        """
        if name is None or not (limit := self._limits.get(name, 0)):
            return {}
        count = await self._counts.add(name, self._client_address(scope), limit)
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(0, limit - count.value)),
            "X-RateLimit-Reset": str(count.reset),
        }

        if count.value > limit:
            wait = count.wait_s
            failure = RateLimitExceeded(
                f"Rate limit exceeded: {limit} {'request' if limit == 1 else 'requests'} a minute"
                f" ({SETTINGS[name]}); try again in {wait} s",
                limit=limit,
                retry_after=wait,
            )
            failure.headers = headers  # type: ignore[attr-defined]
            raise failure
        return headers
