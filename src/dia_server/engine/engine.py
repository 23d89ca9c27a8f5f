"""The engine: one thread that owns the model and runs every admitted utterance as one batch.

Requests enter through `submit` and leave as events on their `Generation`. The engine knows nothing
of HTTP, SQL or audio files; everything it needs is in the `Utterance`.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable

from dia_server.engine.generation import Generation
from dia_server.engine.queue import FairQueue
from dia_server.engine.readiness import LOADING_RETRY_S, require_ready
from dia_server.engine.types import Chunk, EngineName, LoadModel, Model, Utterance, Work
from dia_server.errors import ModelNotLoaded, Overloaded, ServerError

log = logging.getLogger(__name__)

Event = tuple[Generation, Chunk | Exception]

FAIR_SHARE = 5
"""Admissions per background admission: one freed slot in five goes to background work in any case."""
ADMITTED_AT_ONCE = 4
"""Maximum admissions between two steps: each delays running utterances by a few milliseconds on a GPU."""
RESERVED_SHARE = 8
"""Slots per slot reserved for requests: background work never takes the last eighth, at least one slot."""
CLIENT_SHARE = 8
"""Queue places per place that a single client may not take; also slots per slot kept for newcomers."""
NEWCOMER_SLOTS = 2
"""Maximum slots kept for clients that hold none: 2 of 16 or more, 1 of 8, none of fewer, where one slot would
cost a single user too much (a quarter of four); there a newcomer gets the next freed slot."""

OVERLOADED_RETRY_S = 2


class Engine:
    """Owns the model's thread; callers use `start`, `submit`, `stop` and the attributes below."""

    worker_count = 1

    def __init__(
        self,
        name: EngineName,
        load_model: LoadModel,
        *,
        max_waiting: int,
        idle_unload_s: float | None = None,
    ) -> None:
        """A model without work for `idle_unload_s` seconds is closed, and loaded for the next request."""
        self.name = name
        self.ready = False
        """Whether requests are taken; an unloaded model takes them, and they wait for it."""
        self.loaded = 0.0
        """How much of the model is loaded, 0 to 1."""
        self.error: Exception | None = None
        """Why the model could not be loaded; `load` tries again."""
        self.slots = 0
        self.notes: tuple[str, ...] = ()
        """Parts of the model that work in a reduced way."""
        self.work = Work()
        self._on_end: Callable[[Generation], None] = lambda _: None
        self._load_model = load_model
        self._max_waiting = max_waiting
        self._idle_unload_s = idle_unload_s
        self._waiting = FairQueue()
        self._background: deque[Generation] = deque()
        """Background queue, served after `_waiting` and unlimited: its submitters limit it."""
        self._passed = 0
        """Admissions since the last one from `_background`."""
        self._busy: dict[int, Generation] = {}
        self._stopping = False
        self._wake = threading.Condition()
        """Guards `_waiting` and `_stopping` and wakes the thread; held for moments, never during a step."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine")

    @property
    def active(self) -> int:
        """Utterances that are in the batch or wait for it."""
        return len(self._busy) + len(self._waiting) + len(self._background)

    @property
    def busy(self) -> int:
        """Utterances in the batch."""
        return len(self._busy)

    def waiting(self, *, background: bool) -> int:
        """Utterances that wait for a slot."""
        return len(self._background if background else self._waiting)

    def watch(self, on_end: Callable[[Generation], None]) -> None:
        """Have `on_end` called, on the event loop, with every generation that ends from now on."""
        self._on_end = on_end

    def start(self) -> None:
        """Load the model and serve; events go to the event loop this is called on."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def load(self) -> None:
        """Have the model loaded again where that has failed, or the engine has."""
        with self._wake:
            if self.error is not None:
                self.error, self.loaded = None, 0.0
                self._wake.notify()

    def stop(self) -> None:
        """Fail what is waiting or running and join the thread; blocks until the current step is over."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, utterance: Utterance, *, background: bool = False) -> Generation:
        """Queue `utterance`; raises ModelNotLoaded or Overloaded where that would be in vain.

        What is made in the `background` lets others go first, yet never waits for ever.
        """
        require_ready(self)
        generation = Generation(utterance, self._cancel, background=background, on_end=self._on_end)
        with self._wake:
            if self._stopping or not self.ready:
                raise ModelNotLoaded(str(self.error or "The server is shutting down"))
            if background:
                self._background.append(generation)
            else:
                self._require_room(utterance.flow.client)
                self._waiting.push(generation)
            self._wake.notify()
        return generation

    def _require_room(self, client: str) -> None:
        """Raise Overloaded where the queue is full, or has as many utterances of `client` as it may have."""
        places, whose = self._max_waiting, ""
        full = len(self._waiting) >= places
        if not full:
            places, whose = places - places // CLIENT_SHARE, " of this client"
            full = self._waiting.waiting_of(client) >= places
        if full:
            raise Overloaded(
                f"{places} requests{whose} are waiting already (DIA_MAX_WAITING)",
                limit=places,
                retry_after=OVERLOADED_RETRY_S,
            )

    def _cancel(self, generation: Generation) -> None:
        """Drop `generation` from the queue; one that is running is released before the next step."""
        with self._wake:
            if not generation.background:
                self._waiting.discard(generation)
            elif generation in self._background:
                self._background.remove(generation)

    # Everything below runs on the engine thread.

    def _run(self) -> None:
        """Serve until the engine is to stop; after a failure again once `load` is called."""
        while True:
            self._serve()
            with self._wake:
                while self.error is not None and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return

    def _serve(self) -> None:
        """Load the model and make what is submitted, until the engine is to stop or `error` says why not."""
        try:
            model: Model | None = self._load()
        except Exception as error:
            if not self._stopping:
                told = isinstance(error, ServerError)  # in words, to which a traceback adds nothing
                context = {"engine": self.name, "cause": str(error), "retry": "POST /model/load"}
                log.error("model not loaded", extra=context, exc_info=None if told else error)
            self.error = _without_traceback(error)  # reported by /health and by every submit
            return
        self.ready = True
        failure: Exception | None = None
        try:
            while model is not None:
                while self._admit(model):
                    self._step(model)
                if self._stopping:
                    break
                self._unload(model)
                model = None  # its memory is free before the next one is loaded
                model = self._reload()
        except Exception as error:
            log.error("engine stopped", extra={"engine": self.name}, exc_info=error)
            self.error = failure = _without_traceback(error)
        finally:
            with self._wake:
                self.ready = False
                orphans = list(self._busy.values())
            self._busy.clear()
            gone = ModelNotLoaded(str(failure or "The server is shutting down"))
            self._deliver([(generation, gone) for generation in orphans])
            self._fail_waiting(gone)
            if model is not None:
                model.close()

    def _load(self) -> Model:
        model = self._load_model(self._report_loaded)
        self.slots, self.notes, self.loaded = model.slots, model.notes, 1.0
        log.info("model loaded", extra={"engine": self.name, "slots": model.slots})
        return model

    def _unload(self, model: Model) -> None:
        model.close()
        self.loaded = 0.0
        log.info("model unloaded", extra={"engine": self.name, "idle_s": self._idle_unload_s})

    def _reload(self) -> Model | None:
        """Sleep until there is work and load the model for it; None when the engine is to stop.

        If loading fails, the waiting requests get the error and the next request tries again: another process
        may have freed the memory by then.
        """
        while True:
            with self._wake:
                while not (self._stopping or self._waiting or self._background):
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
            waiting = [*self._waiting, *self._background]
            self._waiting.clear()
            self._background.clear()
        self._deliver([(generation, error) for generation in waiting])

    def _report_loaded(self, share: float) -> None:
        """Record the share loaded; raises ModelNotLoaded once the engine is stopping, to end the load."""
        if self._stopping:
            raise ModelNotLoaded("The server is shutting down")
        if int(10 * share) > int(10 * self.loaded):
            log.info("loading", extra={"engine": self.name, "percent": round(100 * share)})
        self.loaded = share

    def _admit(self, model: Model) -> bool:
        """Release what was cancelled and fill free slots; sleep while there is nothing at all to do.

        Returns False when the engine is to leave the model: to stop, or for want of work.
        """
        for slot in [slot for slot, generation in self._busy.items() if generation.cancelled]:
            self._release(model, slot)
        for _ in range(min(ADMITTED_AT_ONCE, model.slots - len(self._busy))):
            with self._wake:
                while not (self._stopping or self._waiting or self._background or self._busy):
                    if not self._wake.wait(self._idle_unload_s):
                        return False
                if self._stopping or (generation := self._next(model.slots)) is None:
                    break
                slot = next(slot for slot in range(model.slots) if slot not in self._busy)
                self._busy[slot] = generation
            try:
                model.admit(slot, generation.utterance)
            except Exception as error:  # noqa: BLE001 - it is this request's; the batch goes on
                self._release(model, slot)
                self._deliver([(generation, _as_server_error(error))])
        return not self._stopping

    def _next(self, slots: int) -> Generation | None:
        """Take the next utterance off its queue.

        The last free slots are for clients that hold none. Background work leaves some slots to requests, and
        of those that are free it gets one in FAIR_SHARE while requests wait too.
        """
        requests = [generation for generation in self._busy.values() if not generation.background]
        kept = min(NEWCOMER_SLOTS, slots // CLIENT_SHARE)
        newcomers_only = slots - len(self._busy) <= kept
        allowed = max(1, slots - max(1, slots // RESERVED_SHARE))
        due = self._waiting and self._passed + 1 >= FAIR_SHARE
        may_run = (due or not newcomers_only) and len(self._busy) - len(requests) < allowed
        if self._background and may_run and (due or not self._waiting):
            self._passed = 0
            return self._background.popleft()
        if (generation := self._waiting.pop(requests, newcomers_only=newcomers_only)) is not None:
            self._passed += 1
        return generation

    def _step(self, model: Model) -> None:
        if not self._busy:
            return
        events: list[Event] = []
        failed = False
        try:
            outcomes = model.step()
            self.work.steps += 1
            self.work.slot_steps += len(self._busy)
            for slot, outcome in outcomes.items():
                generation = self._busy[slot]
                if isinstance(outcome, Chunk):
                    self.work.tokens += outcome.tokens
                    self.work.samples += len(outcome.samples)
                    events.append((generation, outcome))
                    ended = outcome.done
                else:
                    events.append((generation, _as_server_error(outcome)))
                    ended = True
                if ended:
                    self._release(model, slot)
        except Exception as error:  # an out-of-memory step must not end the server
            log.error("step failed", extra={"engine": self.name, "running": len(self._busy)}, exc_info=error)
            events += [(generation, _as_server_error(error)) for generation in self._busy.values()]
            self._busy.clear()
            failed = True
        self._deliver(events)  # before anything else can fail
        if failed:  # and now that the failure is not being handled any more, which would hold what it used
            model.reset()

    def _release(self, model: Model, slot: int) -> None:
        del self._busy[slot]
        model.release(slot)

    def _deliver(self, events: list[Event]) -> None:
        """Hand a step's events to the event loop in one call."""
        assert self._loop is not None
        if events:
            self._loop.call_soon_threadsafe(_put_all, events)


def _as_server_error(error: Exception) -> Exception:
    """`error` as its request is told: what the API has no name for is a failed generation."""
    return (
        _without_traceback(error)
        if isinstance(error, ServerError)
        else ServerError(f"Generation failed: {error}")
    )


def _without_traceback(error: Exception) -> Exception:
    """`error` without its traceback, whose frames hold the tensors they worked with as long as it is kept."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _put_all(events: list[Event]) -> None:
    for generation, event in events:
        generation.put(event)
