"""A planned utterance while the engine generates it."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace

from dia_server.engine.types import Chunk, Frames, Utterance
from dia_server.services.speech.delivery import Delivery
from dia_server.text.plan import PlannedUtterance


class Segment:
    """`start` begins generation, `next` returns its chunks, `cancel` frees its slot."""

    def __init__(
        self,
        planned: PlannedUtterance,
        utterance: Utterance,
        delivery: Delivery,
        *,
        first: bool,
        limit: int | None,
        judged: bool,
    ) -> None:
        self.planned = planned
        self.utterance = utterance
        self.background = delivery.background
        self.first = first
        """Whether the text begins with this segment."""
        self.limit = limit
        """Decoder steps after which the client wants it to end, even within a word."""
        self.judged = judged
        """Whether the guard checks the audio for faults."""
        self.held = judged and not (first and delivery.live)
        """Whether the audio is held back until it has been judged, so that it can be generated again."""
        self.retries = 0
        self.whole = False
        """Whether generation ended without faults and before the client's limit."""
        self.frames: Frames | None = None
        """Codec frames of the whole segment, once its last chunk has been returned."""
        self.audible = False
        """Whether a chunk returned so far has a sample other than zero."""
        self._events: asyncio.Queue[Chunk | BaseException | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self, generation: Coroutine[None, None, None]) -> None:
        """Run `generation`, which calls `put`, as a task."""
        self._task = asyncio.create_task(generation)
        self._task.add_done_callback(self._ended)

    def retry(self) -> None:
        """Take the next seed for another attempt."""
        self.retries += 1
        self.utterance = replace(self.utterance, seed=(self.utterance.seed + 1) % 2**32)

    def put(self, chunk: Chunk) -> None:
        self._events.put_nowait(chunk)

    async def next(self) -> Chunk | None:
        """Return the next chunk, None after the last; raises what generation raised, after its chunks."""
        event = await self._events.get()
        if isinstance(event, BaseException):
            try:
                raise event
            finally:
                del event  # its traceback refers to this frame
        if event is not None:
            self.frames = event.frames
            self.audible = self.audible or bool(event.samples.any())
        return event

    def cancel(self) -> asyncio.Task[None] | None:
        """Free the slot; returns the task that is being cancelled, None if it has ended already."""
        self._events = asyncio.Queue()
        if self._task is not None:
            self._task.cancel()
        return self._task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Drop the task: the traceback of its exception refers to this segment, and such a cycle would keep
        minutes of audio until the garbage collector finds it."""
        self._task = None
        self._events.put_nowait(asyncio.CancelledError() if task.cancelled() else task.exception())
