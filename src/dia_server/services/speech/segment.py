"""A planned utterance while the engine makes it."""

import asyncio
from collections.abc import Coroutine

from dia_server.engine.types import Chunk, Utterance
from dia_server.text.plan import PlannedUtterance


class Segment:
    """`start` begins it, `next` gives what has come, `cancel` gives its slot back."""

    def __init__(
        self,
        planned: PlannedUtterance,
        utterance: Utterance,
        *,
        first: bool,
        limit: int | None,
        judged: bool,
        held: bool,
    ) -> None:
        self.planned = planned
        self.utterance = utterance
        self.first = first
        """Whether it begins its text."""
        self.limit = limit
        """Decoder steps after which the client wants it to end, in the middle of a word if need be."""
        self.judged = judged
        """Whether the guard is to find what is wrong with it."""
        self.held = held
        """Whether its audio is kept back until it is judged, so that it can be made again."""
        self.retries = 0
        self.whole = False
        """Whether it has been made, and neither its limit has cut it nor the guard found anything."""
        self._events: asyncio.Queue[Chunk | BaseException | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self, running: Coroutine[None, None, None]) -> None:
        """Run `running`, which calls `put`."""
        self._task = asyncio.create_task(running)
        self._task.add_done_callback(self._ended)

    def put(self, chunk: Chunk) -> None:
        self._events.put_nowait(chunk)

    async def next(self) -> Chunk | None:
        """Return what comes next, None at the end; raises what making it raised, in its place."""
        event = await self._events.get()
        if not isinstance(event, BaseException):
            return event
        try:
            raise event
        finally:
            del event  # its traceback refers to this frame

    def cancel(self) -> asyncio.Task[None] | None:
        """Give the slot back; returns the task that ends then, None if it has ended already."""
        self._events = asyncio.Queue()
        if self._task is not None:
            self._task.cancel()
        return self._task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Drop the task: the traceback of its exception refers to this segment, which would keep minutes of
        audio until the garbage collector finds the cycle."""
        self._task = None
        self._events.put_nowait(asyncio.CancelledError() if task.cancelled() else task.exception())
