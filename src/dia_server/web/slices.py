"""Sends large responses in slices, so that a client that does not read ties up only a few of them."""

from litestar.response.base import ASGIResponse
from litestar.types import HTTPResponseBodyEvent, Receive, Send

SLICE = 32 * 1024
"""Bytes per slice; the HTTP server buffers up to eight slices per connection."""


class SlicedResponse(ASGIResponse):
    """Sends a body shared by many responses; a disconnected client is no error."""

    async def send_body(self, send: Send, receive: Receive) -> None:
        for start in range(0, max(1, len(self.body)), SLICE):
            event: HTTPResponseBodyEvent = {
                "type": "http.response.body",
                "body": self.body[start : start + SLICE],
                "more_body": start + SLICE < len(self.body),
            }
            await send(event)
