"""Records the route, status, duration and time to first audio of every HTTP request for /metrics."""

import time

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from dia_server.services.server import Metrics

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
AUDIO = ("audio/", "text/event-stream")
"""Prefixes of the media types of responses with audio."""


class RequestMetrics:
    """ASGI wrapper that reads the matched route from the scope.

    Requests without a route (404, 405, preflights) share the route `none`, and unknown methods the method
    `other`, so that clients cannot create new time series.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        status, audio, first_audio_s, started = "none", False, None, time.perf_counter()

        async def send_observed(message: Message) -> None:
            nonlocal status, audio, first_audio_s
            if message["type"] == "http.response.start":
                status = str(message["status"])
                audio = Headers(message["headers"]).get("content-type", "").startswith(AUDIO)
            elif audio and first_audio_s is None and message.get("body"):
                first_audio_s = time.perf_counter() - started
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        finally:
            self._metrics.observe(
                method=method if method in METHODS else "other",
                route=scope.get("path_template") or "none",
                status=status,
                seconds=time.perf_counter() - started,
                first_audio_s=first_audio_s,
            )
