"""Decodes codes to audio: on CUDA concurrently with decode steps, on CPUs and Metal synchronously."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np
import torch

from dia_server.engine.dia.background_stream import BackgroundStream
from dia_server.engine.dia.memory import RETRY_S, is_out_of_memory, release_cached
from dia_server.engine.dia.run import Run
from dia_server.engine.dia.windows import MAX_WINDOWS, Span, Window, batches
from dia_server.engine.types import Chunk, Samples
from dia_server.errors import GpuOutOfMemory

log = logging.getLogger(__name__)

Decoded = Samples | GpuOutOfMemory
"""The audio of a window, or why there is none."""
Emitted = tuple[int, Run, Chunk | GpuOutOfMemory]
"""A slot, its run, and the run's next chunk or its error."""
NO_ROOM = "Too little memory is left to decode this request's audio; try again later"
GROW_AFTER = 64
"""Calls to the codec without a shortage of memory after which it decodes twice as many windows."""


class CodecDecoder(Protocol):
    def decode(self, windows: Sequence[Window]) -> list[Samples]:
        """Return the samples of each window, without those of its context frames."""

    def warm_up(self, most: int) -> None:
        """Prepare for batches of up to `most` windows."""


@dataclass(frozen=True, slots=True, eq=False)
class Due:
    """The next span of a run, which can be decoded."""

    slot: int
    run: Run
    span: Span
    rank: tuple[bool, int]
    """Order of decoding: first windows (False) before others, then by the length of the padded window.

    A listener waits for a first window. Short windows belong to the streams with the least audio ahead.
    """


@dataclass(frozen=True, slots=True, eq=False)
class DecodeTask:
    """A window to decode, with the values of the `Chunk` that will carry its audio."""

    slot: int
    run: Run
    window: Window
    tokens: int
    progress: float
    done: bool


class AudioDecoder:
    """Decodes one batch of windows of one length at a time, so that a first window waits for one batch only.

    If memory runs out, decodes half as many windows in a call to the codec, then and in later batches. After
    GROW_AFTER calls without a shortage it decodes twice as many. If memory runs out for a single window, only
    that window fails.
    """

    def __init__(
        self, codec: CodecDecoder, device: torch.device, clock: Callable[[], float] | None = None
    ) -> None:
        """`clock` returns seconds, by which streams that are ahead of their listeners get longer chunks.

        Without it, the windows of an utterance are the same each time, and on CPUs so are its samples.
        """
        self._codec, self._clock = codec, clock
        self._background = BackgroundStream(device, "codec") if device.type == "cuda" else None
        self._most: int | None = None
        """Maximum windows of a call to the codec, once memory has run out; None for any number."""
        self._successes = 0
        """Calls to the codec since `_most` has changed."""
        self._tasks: Sequence[DecodeTask] = []
        self.running: Future[list[Decoded]] | None = None
        """The batch that is being decoded on CUDA."""

    def warm_up(self, slots: int) -> None:
        """Let the codec prepare for batches of up to `slots` windows, and wait for it; raises its error."""
        if self._background is None:
            self._codec.warm_up(slots)
        else:
            self._background.submit(self._codec.warm_up, slots).result()

    def advance(self, runs: Mapping[int, Run], *, wait: bool) -> list[Emitted]:
        """Return the chunks that have been decoded, and decode the windows of `runs` that are due.

        `runs` is keyed by slot. On CPUs and Metal the chunks of these windows are returned too. On CUDA only
        one batch begins, if none is being decoded, and a later call returns its chunks; with `wait`, waits
        for the batch that is being decoded. A run of which no frames are left gets an empty last chunk.
        """
        chunks = self._finished(wait=wait)
        if self.running is None:
            served = {slot for slot, _, _ in chunks}
            due: list[Due] = []
            for slot, run in runs.items():
                span = None if run.broken else run.next_span(self._lead(run))
                if span is not None:
                    due.append(Due(slot, run, span, (run.emitted > 0, span.length)))
                elif run.finished and not run.broken and slot not in served:
                    chunks.append((slot, run, _last_chunk(run)))
            chunks += self._start(due)
        return chunks

    def abandon(self) -> None:
        """Wait for the batch being decoded and discard its audio or error."""
        if self.running is not None:
            self.running.exception()
            self.running = None

    def close(self) -> None:
        self.abandon()
        if self._background is not None:
            self._background.close()

    def _finished(self, *, wait: bool) -> list[Emitted]:
        """Return, once, the chunks of the batch that was started on CUDA; [] if there is none yet."""
        if self.running is None or not (wait or self.running.done()):
            return []
        audio, self.running = self.running, None
        return self._emit(self._tasks, audio.result())

    def _start(self, due: list[Due]) -> list[Emitted]:
        """Decode `due` and return the chunks; on CUDA only start to decode the first batch."""
        chunks: list[Emitted] = []
        due.sort(key=lambda one: one.rank)
        for (_, length), group in groupby(due, key=lambda one: one.rank):
            for batch in batches(list(group), length):
                tasks = [_task(one) for one in batch]
                windows = [task.window for task in tasks]
                if self._background is not None:
                    self._tasks = tasks
                    self.running = self._background.submit(self._decode, windows)
                    return []
                chunks += self._emit(tasks, self._decode(windows))
        return chunks

    def _lead(self, run: Run) -> float:
        """Return the frames that the listener of `run` has not heard yet; infinity if nobody listens yet."""
        if not run.utterance.streamed:
            return float("inf")
        return 0.0 if self._clock is None else run.lead(self._clock())

    def _emit(self, tasks: Sequence[DecodeTask], decoded: Sequence[Decoded]) -> list[Emitted]:
        if self._clock is not None:
            for task in tasks:
                task.run.begin_playback(self._clock())
        return [(task.slot, task.run, _chunk(task, one)) for task, one in zip(tasks, decoded, strict=True)]

    def _decode(self, windows: Sequence[Window]) -> list[Decoded]:
        decoded: list[Decoded] = []
        while len(decoded) < len(windows):
            part = windows[len(decoded) :][: self._most]
            try:
                decoded += self._codec.decode(part)
                self._grow()
                continue
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            release_cached()  # after the handler: the traceback's frames refer to tensors
            if len(part) > 1:
                self._most, self._successes = len(part) // 2, 0
                log.warning("out of memory in the codec", extra={"windows": self._most})
            else:
                decoded.append(GpuOutOfMemory(NO_ROOM, retry_after=RETRY_S))
        return decoded

    def _grow(self) -> None:
        """Count a call that had enough memory; after GROW_AFTER of them allow twice as many windows."""
        if self._most is None:
            return
        self._successes += 1
        if self._successes == GROW_AFTER:
            more = 2 * self._most
            self._most, self._successes = None if more >= MAX_WINDOWS else more, 0


def _task(due: Due) -> DecodeTask:
    run = due.run
    window = run.take(due.span)
    return DecodeTask(due.slot, run, window, run.count_tokens(), run.progress, run.finished)


def _chunk(task: DecodeTask, decoded: Decoded) -> Chunk | GpuOutOfMemory:
    if isinstance(decoded, GpuOutOfMemory):
        return decoded
    frames = task.run.frames() if task.done else None
    return Chunk(decoded, task.tokens, task.progress, task.done, frames)


def _last_chunk(run: Run) -> Chunk:
    """Return an empty chunk that ends `run`, whose audio has all been emitted."""
    return Chunk(np.empty(0, np.float32), run.count_tokens(), 1.0, done=True, frames=run.frames())
