"""The engine: one thread that owns the model and runs all admitted utterances as one batch.

`submit` queues an utterance; its audio or failure arrives as events on the returned `Generation`. The engine
does not depend on HTTP, SQL or audio files: everything it needs is in the `Utterance`.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from itertools import count

from dia_server.engine.batch import Batch, Progress, Runner, without_traceback
from dia_server.engine.generation import Generation
from dia_server.engine.readiness import LOADING_RETRY_S, require_ready
from dia_server.engine.types import Chunk, EngineName, LoadModel, Utterance, Work
from dia_server.engine.waiting_room import WaitingRoom
from dia_server.engine.workers import WorkerBatch
from dia_server.errors import ModelNotLoaded, ServerError

log = logging.getLogger(__name__)

Delivery = tuple[Generation, Chunk | Exception]


class Engine:
    """Owns the thread that runs the model; other threads use the public methods and attributes."""

    worker_count = 1
    cluster = None

    def __init__(
        self,
        name: EngineName,
        load_model: LoadModel,
        *,
        max_waiting: int,
        idle_unload_s: float | None = None,
        own_process: bool = False,
    ) -> None:
        """Prepare an engine with a queue of at most `max_waiting` utterances; `start` loads the model.

        With `own_process` the model runs in a worker process, and `load_model` must be picklable.
        After `idle_unload_s` seconds without queued or running utterances, the model is closed; the next
        utterance loads it again. None keeps it loaded.
        """
        self.name = name
        self.ready = False
        """Whether `submit` accepts utterances: after the first load, also while an idle model is unloaded."""
        self.loaded = 0.0
        """Share of the model that is loaded, 0 to 1."""
        self.error: Exception | None = None
        """Error that made loading fail or stopped the engine, else None; `load` clears it and retries."""
        self.slots = 0
        self.notes: tuple[str, ...] = ()
        """One text per part of the model that runs degraded, with cause and remedy."""
        self.work = Work()
        self._on_end: Callable[[Generation], None] = lambda _: None
        self._load_model = load_model
        self._idle_unload_s = idle_unload_s
        self._own_process = own_process
        self._runner: Runner | None = None
        """Batch of the loaded model, guarded by `_wake`."""
        self._waiting = WaitingRoom(max_waiting)
        self._busy: dict[int, Generation] = {}
        """Generations in the batch, by ticket."""
        self._tickets = count()
        self._stopping = False
        self._wake = threading.Condition()
        """Condition that guards `_waiting` and `_stopping` and wakes the thread; not held during a step."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine")

    @property
    def active(self) -> int:
        """Number of utterances in the batch or in a queue."""
        with self._wake:  # an utterance on its way from one to the other is counted
            return len(self._busy) + len(self._waiting)

    @property
    def busy(self) -> int:
        """Number of utterances in the batch."""
        return len(self._busy)

    def waiting(self, *, background: bool) -> int:
        """Return the length of the background queue or of the request queue."""
        return self._waiting.count(background=background)

    def watch(self, on_end: Callable[[Generation], None]) -> None:
        """Set the callback for the end of each generation submitted later; it runs on the event loop."""
        self._on_end = on_end

    def start(self) -> None:
        """Start the thread, which loads the model; its events are delivered to the caller's event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def load(self) -> None:
        """If `error` is set, clear it and let the thread load the model again; returns at once."""
        with self._wake:
            if self.error is not None:
                self.error, self.loaded = None, 0.0
                self._notify()

    def stop(self) -> None:
        """End the thread; blocks until it has failed all queued and running utterances and closed the model.

        The thread reacts after the current step or, during a load, when the load next reports its progress.
        """
        with self._wake:
            self._stopping = True
            self._notify()
        self._thread.join()

    def submit(self, utterance: Utterance, *, background: bool = False) -> Generation:
        """Queue `utterance` as a request, or as `background` work; raises ModelNotLoaded unless `ready`.

        A request raises Overloaded if the request queue, or its client's share of it, is full. Background
        work yields to requests. While both wait, it gets one of FAIR_SHARE admissions, to prevent starvation.
        """
        require_ready(self)
        generation = Generation(utterance, self._cancel, background=background, on_end=self._on_end)
        with self._wake:
            if self._stopping or not self.ready:
                raise ModelNotLoaded(str(self.error or "The server is shutting down"))
            self._waiting.add(generation)
            self._notify()
        return generation

    def _cancel(self, generation: Generation) -> None:
        """Remove `generation` if it is queued; if it runs, `_admit` takes it out of the batch."""
        with self._wake:
            self._waiting.discard(generation)
            self._notify()

    def _notify(self) -> None:
        """Let the thread look at the queue, at cancellations and at `stop`; the caller holds `_wake`."""
        self._wake.notify()
        if self._runner is not None:
            self._runner.wake()

    # Everything below runs on the engine thread.

    def _run(self) -> None:
        """Thread's main function: serve until `stop`; after a failure, wait for `load` and serve again."""
        while True:
            self._serve()
            with self._wake:
                while self.error is not None and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return

    def _serve(self) -> None:
        """Load the model and run utterances, until `stop` or a failure, which is stored in `error`.

        At the end, all running and queued utterances fail and the model is closed.
        """
        try:
            runner: Runner | None = self._load()
        except Exception as error:
            if not self._stopping:
                told = isinstance(error, ServerError)  # expected: no traceback is needed
                context = {"engine": self.name, "cause": str(error), "retry": "POST /model/load"}
                log.error("model not loaded", extra=context, exc_info=None if told else error)
            self.error = without_traceback(error)  # reported by /health and by every submit
            return
        self.ready = True
        failure: Exception | None = None
        try:
            while runner is not None:
                while self._admit(runner):
                    if self._busy:
                        runner.advance()
                    self.slots, self.notes = (
                        runner.slots,
                        runner.notes,
                    )  # a reset or a new worker changes them
                if self._stopping:
                    break
                self._unload(runner)
                runner = None  # drops the last reference: frees memory before `_reload`
                runner = self._reload()
        except Exception as error:
            log.error("engine stopped", extra={"engine": self.name}, exc_info=error)
            self.error = failure = without_traceback(error)
        finally:
            with self._wake:
                self.ready = False
                self._runner = None
                orphans = list(self._busy.values())
            self._busy.clear()
            gone = ModelNotLoaded(str(failure or "The server is shutting down"))
            self._deliver([(generation, gone) for generation in orphans])
            self._fail_waiting(gone)
            if runner is not None:
                runner.close()

    def _load(self) -> Runner:
        load_model, report = self._load_model, self._report_loaded
        runner: Runner = (
            WorkerBatch(load_model, report, self._receive)
            if self._own_process
            else Batch(load_model(report), self._receive)
        )
        with self._wake:
            self._runner = runner
        self.slots, self.notes, self.loaded = runner.slots, runner.notes, 1.0
        log.info("model loaded", extra={"engine": self.name, "slots": runner.slots})
        return runner

    def _unload(self, runner: Runner) -> None:
        with self._wake:
            self._runner = None
        runner.close()
        self.loaded = 0.0
        log.info("model unloaded", extra={"engine": self.name, "idle_s": self._idle_unload_s})

    def _reload(self) -> Runner | None:
        """Sleep until an utterance is queued, then load the model; returns None on `stop`.

        If loading fails, the queued utterances fail with that error. The next submission starts another load,
        because other processes may have freed memory by then.
        """
        while True:
            with self._wake:
                while not (self._stopping or self._waiting):
                    self._wake.wait()
                if self._stopping:
                    return None
            try:
                return self._load()
            except Exception as error:
                if not self._stopping:
                    log.error("model not loaded again", extra={"engine": self.name}, exc_info=error)
                self.loaded = 0.0
                self._fail_waiting(
                    ModelNotLoaded(
                        f"The {self.name} engine could not be loaded again: {error}",
                        retry_after=LOADING_RETRY_S,
                    )
                )

    def _fail_waiting(self, error: Exception) -> None:
        with self._wake:
            waiting = self._waiting.clear()
        self._deliver([(generation, error) for generation in waiting])

    def _report_loaded(self, share: float) -> None:
        """Record and log the loaded `share`; after `stop`, raise ModelNotLoaded to abort the load."""
        if self._stopping:
            raise ModelNotLoaded("The server is shutting down")
        if int(10 * share) > int(10 * self.loaded):
            log.info("loading", extra={"engine": self.name, "percent": round(100 * share)})
        self.loaded = share

    def _admit(self, runner: Runner) -> bool:
        """Remove cancelled utterances from the batch, then admit queued ones while there are free slots.

        Blocks while no utterance is queued or in the batch. Returns False after `stop`, or after
        `idle_unload_s` seconds of blocking; else True.
        """
        for ticket in [ticket for ticket, generation in self._busy.items() if generation.cancelled]:
            del self._busy[ticket]
            runner.cancel(ticket)
        while len(self._busy) < runner.slots:
            with self._wake:
                while not (self._stopping or self._waiting or self._busy):
                    if not self._wake.wait(self._idle_unload_s):
                        return False
                if self._stopping:
                    break
                if (generation := self._waiting.take(self._busy.values(), runner.slots)) is None:
                    break
                ticket = next(self._tickets)
                self._busy[ticket] = generation
            runner.admit(ticket, generation.utterance)
        return not self._stopping

    def _receive(self, progress: Progress) -> None:
        """Count the work of `progress` and deliver its events, except those of cancelled utterances."""
        self.work.steps += progress.steps
        self.work.slot_steps += progress.slot_steps
        deliveries: list[Delivery] = []
        for ticket, event in progress.events:
            if isinstance(event, Chunk):
                self.work.tokens += event.tokens
                self.work.samples += len(event.samples)
            if (generation := self._busy.get(ticket)) is not None:
                deliveries.append((generation, event))
                if isinstance(event, Exception) or event.done:
                    del self._busy[ticket]
        self._deliver(deliveries)

    def _deliver(self, deliveries: list[Delivery]) -> None:
        """Pass all `deliveries` to the event loop in a single callback."""
        assert self._loop is not None
        if deliveries:
            self._loop.call_soon_threadsafe(_put_all, deliveries)


def _put_all(deliveries: list[Delivery]) -> None:
    for generation, event in deliveries:
        generation.put(event)
