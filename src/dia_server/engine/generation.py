"""The asyncio end of one utterance that the engine thread is working on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Self

from dia_server.engine.types import Chunk, Utterance


class Generation(AsyncIterator[Chunk]):
    """Iterate over it for audio; leaving the `async with` block cancels whatever is not finished."""

    __slots__ = ("_cancel", "_ended", "_events", "background", "cancelled", "utterance")

    def __init__(
        self, utterance: Utterance, cancel: Callable[["Generation"], None], *, background: bool = False
    ) -> None:
        self.utterance = utterance
        self.background = background
        """Nobody waits for it: others go first."""
        self.cancelled = False
        """Read by the engine thread before each step."""
        self._cancel = cancel
        self._events: asyncio.Queue[Chunk | Exception] = asyncio.Queue()
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Give the slot, or the place in the queue, back; without effect on what has ended."""
        if not self.cancelled:
            self.cancelled = True
            self._cancel(self)

    async def __anext__(self) -> Chunk:
        if self._ended:
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, Exception):
            self._ended = True
            raise event
        self._ended = event.done
        return event

    def put(self, event: Chunk | Exception) -> None:
        """Deliver audio or a failure; called on the event loop only."""
        self._events.put_nowait(event)
