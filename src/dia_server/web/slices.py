"""Sends large responses in slices, so that a client that does not read makes the HTTP server buffer only a
few."""

from litestar.response.base import ASGIResponse
from litestar.types import HTTPResponseBodyEvent, Receive, Send

SLICE = 32 * 1024
"""Bytes per slice; the HTTP server buffers up to eight slices per connection."""


class SlicedResponse(ASGIResponse):
    """Sends its body, which may be shared with other responses, in slices of SLICE bytes."""

    async def send_body(self, send: Send, receive: Receive) -> None:
        for start in range(0, max(1, len(self.body)), SLICE):
            event: HTTPResponseBodyEvent = {
                "type": "http.response.body",
                "body": self.body[start : start + SLICE],
                "more_body": start + SLICE < len(self.body),
            }
            await send(event)
