"""The asyncio side of an utterance that the engine thread runs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Literal, Self

from dia_server.engine.types import Chunk, Utterance

Outcome = Literal["made", "failed", "cancelled"]


class Generation(AsyncIterator[Chunk]):
    """Async iterator over an utterance's chunks, which raises the utterance's failure.

    As an async context manager, it cancels the utterance on exit.
    """

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
        """Wrap a queued `utterance`.

        `cancel` is called with this generation to remove it from the engine's queue. `on_end` is called once,
        on the event loop, after `outcome` is set.
        """
        self.utterance = utterance
        self.background = background
        """Whether the utterance is background work, which yields to requests."""
        self.cancelled = False
        """Whether `cancel` was called; the engine thread then takes the utterance out of the batch."""
        self.outcome: Outcome | None = None
        """How the generation ended; None while it is queued or running."""
        self.first_audio_s: float | None = None
        """Seconds from submission to the first samples, including time in the queue; None before them."""
        self.total_s = 0.0
        """Seconds from submission to the end; 0 while `outcome` is None."""
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
        """Leave the queue, or let the engine release the slot.

        Idempotent; an `outcome` that is already set does not change.
        """
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
            try:
                raise event
            finally:
                del event  # avoids a reference cycle: its traceback refers to this frame
        self._ended = event.done
        return event

    def put(self, event: Chunk | Exception) -> None:
        """Deliver a chunk or a failure; to be called on the event loop only."""
        self._events.put_nowait(event)
        if isinstance(event, Exception):
            self._end("failed")
            return
        if self.outcome is None and self.first_audio_s is None and len(event.samples):
            self.first_audio_s = time.perf_counter() - self._submitted
        if event.done:
            self._end("made")

    def _end(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self.total_s = time.perf_counter() - self._submitted
            self._on_end(self)
