"""A segment of a text: its planned utterance, and its generation by the engine."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace

from dia_server.engine.types import Chunk, Frames, Utterance
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.timestamps import PlacedWord, Timing
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
        timing: Timing | None = None,
    ) -> None:
        self.planned = planned
        self.background = delivery.background
        self.first = first
        """Whether the text begins with this segment."""
        self.limit = limit
        """Client's limit of decode steps, which may cut a word; None if unset or above the plan's limit."""
        self.judged = judged
        """Whether the guard checks the audio for faults."""
        self.held = judged and not (first and delivery.live)
        """Whether the audio is held back until the guard has judged it, so that a retry can replace it."""
        self.utterance = replace(utterance, streamed=delivery.live and not self.held)
        self.timing = timing
        """Timestamps to find in its audio; None if there are none, or only the segment's own."""
        self.placed: Sequence[PlacedWord] = ()
        """Words of its audio, if `timing` is set; complete when `next` has returned None."""
        self.gain_db: float | None = None
        """Gain of its voices, which is applied later (see `SegmentVoices`)."""
        self.accepted = False
        """Whether the engine has accepted any attempt at it."""
        self.retries = 0
        self.whole = False
        """Whether generation ended without faults and before the client's limit."""
        self.frames: Frames | None = None
        """Codec frames of the whole segment; None until `next` has returned the last chunk."""
        self.audible = False
        """Whether any chunk that `next` has returned contains a sample other than zero."""
        self._events: asyncio.Queue[Chunk | BaseException | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self, generation: Coroutine[None, None, None]) -> None:
        """Run `generation`, which passes its chunks to `put`, as a task."""
        self._task = asyncio.create_task(generation)
        self._task.add_done_callback(self._ended)

    def retry(self) -> None:
        """Prepare the next attempt: count a retry and increment the seed."""
        self.retries += 1
        self.utterance = replace(self.utterance, seed=(self.utterance.seed + 1) % 2**32)

    def put(self, chunk: Chunk) -> None:
        self._events.put_nowait(chunk)

    async def next(self) -> Chunk | None:
        """Return the next chunk; after the last, return None or raise the error that ended generation."""
        event = await self._events.get()
        if isinstance(event, BaseException):
            try:
                raise event
            finally:
                del event  # break a cycle: its traceback refers to this frame
        if event is not None:
            self.frames = event.frames
            self.audible = self.audible or bool(event.samples.any())
        return event

    def cancel(self) -> asyncio.Task[None] | None:
        """Drop waiting chunks and cancel generation, which frees the slot; return its task, None if ended."""
        self._events = asyncio.Queue()
        if self._task is not None:
            self._task.cancel()
        return self._task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Report the end to `next` and drop the task.

        The traceback of the task's exception refers to this segment: such a cycle would keep minutes of audio
        in memory until the garbage collector finds it.
        """
        self._task = None
        self._events.put_nowait(asyncio.CancelledError() if task.cancelled() else task.exception())
