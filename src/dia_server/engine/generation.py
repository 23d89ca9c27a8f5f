"""The asyncio end of one utterance that the engine thread is working on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Literal, Self

from dia_server.engine.types import Chunk, Utterance

Outcome = Literal["made", "failed", "cancelled"]


class Generation(AsyncIterator[Chunk]):
    """Iterate over it for audio; leaving the `async with` block cancels whatever is not finished."""

    __slots__ = (
        *("_cancel", "_ended", "_events", "_on_end", "_submitted"),
        *("background", "cancelled", "first_audio_s", "outcome", "total_s", "utterance"),
    )

    def __init__(
        self,
        utterance: Utterance,
        cancel: Callable[["Generation"], None],
        *,
        background: bool = False,
        on_end: Callable[["Generation"], None] = lambda _: None,
    ) -> None:
        """`on_end` is called once, on the event loop, when `outcome` is known."""
        self.utterance = utterance
        self.background = background
        """Whether it belongs to background work, which is admitted after requests."""
        self.cancelled = False
        """Read by the engine thread before each step."""
        self.outcome: Outcome | None = None
        self.first_audio_s: float | None = None
        """Seconds from the submission to the first samples, the queue included."""
        self.total_s = 0.0
        """Seconds from the submission to the outcome."""
        self._on_end = on_end
        self._submitted = time.perf_counter()
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
            self._end("cancelled")

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
        if isinstance(event, Exception):
            self._end("failed")
            return
        if self.first_audio_s is None and len(event.samples):
            self.first_audio_s = time.perf_counter() - self._submitted
        if event.done:
            self._end("made")

    def _end(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self.total_s = time.perf_counter() - self._submitted
            self._on_end(self)
