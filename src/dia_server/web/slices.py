"""Large answers in slices: a client that does not read holds a few of them, not the whole."""

from litestar.response.base import ASGIResponse
from litestar.types import HTTPResponseBodyEvent, Receive, Send

SLICE = 32 * 1024
"""Bytes that are sent at once; the HTTP server holds up to eight slices for each connection."""


class SlicedResponse(ASGIResponse):
    """Sends a body that many answers share; to send to a client that has gone is no error."""

    async def send_body(self, send: Send, receive: Receive) -> None:
        for start in range(0, max(1, len(self.body)), SLICE):
            event: HTTPResponseBodyEvent = {
                "type": "http.response.body",
                "body": self.body[start : start + SLICE],
                "more_body": start + SLICE < len(self.body),
            }
            await send(event)
