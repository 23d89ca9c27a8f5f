"""The engine of a cluster: utterances wait here, by the rules of `WaitingRoom`, until a replica has a slot.

Ray Serve has a queue too, but it knows neither fairness nor background work, and it asks the replicas again
and again. So an utterance is sent only when a slot is known to be free, and Serve's queue stays empty.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from dia_server import __version__
from dia_server.engine.cluster.heard import Differs, Heard
from dia_server.engine.cluster.types import ClusterState, ReplicaLost, Replicas, ReplicaState, Sign
from dia_server.engine.generation import Generation
from dia_server.engine.readiness import require_ready
from dia_server.engine.types import EngineName, Utterance, Work
from dia_server.engine.waiting_room import WaitingRoom
from dia_server.errors import EngineLost, ModelNotLoaded, ServerError

log = logging.getLogger(__name__)

POLL_S = 0.5
"""Seconds between questions for the states of the replicas."""
RECONNECT_S = 5.0
"""Seconds until a connection that failed is tried again."""
ANSWER_S = 5.0
"""Seconds until an utterance that no replica has begun is sent again."""
SILENCE_S = 5.0
"""Seconds without a sign of life after which a replica counts as lost; it sends one each second."""
REPLACEMENT_S = 60.0
"""Seconds for which utterances are taken while there is no replica: an update may replace all at once."""
ATTEMPTS = 3
"""Replicas that may be lost with an utterance before it fails."""


class UnsuitableEngines(ModelNotLoaded):
    """The cluster answers, but its engines are not those of this server."""


class ClusterEngine:
    """Runs on the event loop. Its state is that of the replicas at the last poll."""

    def __init__(
        self,
        name: EngineName,
        replicas: Replicas,
        *,
        max_waiting: int,
        columns: int = 0,
        poll_s: float = POLL_S,
        answer_s: float = ANSWER_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        """`columns` is the number of decoder columns of a slot by which the server plans utterances."""
        self.name = name
        self._columns = columns
        self.error: Exception | None = None
        self._failovers = 0
        self._states: Sequence[ReplicaState] = ()
        self._seen = -math.inf
        """Time of the last poll that found a replica."""
        self._replicas = replicas
        self._poll_s = poll_s
        self._answer_s = answer_s
        self._silence_s = silence_s
        self._on_end: Callable[[Generation], None] = lambda _: None
        self._waiting = WaitingRoom(max_waiting)
        self._running: dict[Generation, asyncio.Task[None]] = {}
        self._others = 0
        """Slots that other servers' utterances held at the last poll."""
        self._wake = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False

    @property
    def worker_count(self) -> int:
        return len(self._states)

    @property
    def ready(self) -> bool:
        seen = time.monotonic() - self._seen < REPLACEMENT_S
        return self.error is None and seen and not self._stopping

    @property
    def loaded(self) -> float:
        return float(self.ready)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(note for state in self._states for note in state.notes))

    @property
    def slots(self) -> int:
        return sum(state.slots for state in self._states)

    @property
    def active(self) -> int:
        return self.busy + len(self._waiting)

    @property
    def busy(self) -> int:
        return len(self._running)

    @property
    def work(self) -> Work:
        return sum((state.work for state in self._states), Work())

    @property
    def cluster(self) -> ClusterState:
        return ClusterState(self._states, self._failovers)

    def waiting(self, *, background: bool) -> int:
        return self._waiting.count(background=background)

    def watch(self, on_end: Callable[[Generation], None]) -> None:
        self._on_end = on_end

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._polling = self._loop.create_task(self._poll())

    def load(self) -> None:
        """Connect again now, if that has failed."""
        if self.error is not None:
            self.error = None
            self._wake.set()

    def stop(self) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._replicas.close()

    def submit(self, utterance: Utterance, *, background: bool = False) -> Generation:
        require_ready(self)
        generation = Generation(utterance, self._cancel, background=background, on_end=self._on_end)
        self._waiting.add(generation)
        self._send_waiting()
        return generation

    async def _end(self) -> None:
        self._stopping = True
        gone = ModelNotLoaded("The server is shutting down")
        for generation in [*self._waiting.clear(), *self._running]:
            generation.put(gone)
        tasks = [*self._running.values(), *([self._polling] if self._polling else [])]
        for task in tasks:
            task.cancel()
        self._wake.set()  # Ray's `asyncio.wait_for` can lose the cancellation in Python 3.11
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cancel(self, generation: Generation) -> None:
        if generation.outcome is not None:  # its response ends by itself
            return
        if task := self._running.get(generation):
            task.cancel()
        else:
            self._waiting.discard(generation)

    def _send_waiting(self) -> None:
        """Send as many waiting utterances to replicas as there are free slots."""
        slots = self.slots - self._others
        while len(self._running) < slots and (generation := self._waiting.take(self._running, slots)):
            task = asyncio.create_task(self._run(generation))
            self._running[generation] = task
            task.add_done_callback(partial(self._forget, generation))

    def _forget(self, generation: Generation, _: asyncio.Task[None]) -> None:
        del self._running[generation]
        self._send_waiting()

    async def _run(self, generation: Generation) -> None:
        try:
            await self._generate(generation)
        except ServerError as error:
            generation.put(error.with_traceback(None))
        except Exception as error:
            log.error("replica not called", exc_info=error)
            generation.put(ServerError(f"Generation failed: {type(error).__name__}"))

    async def _generate(self, generation: Generation) -> None:
        """Have a replica generate an utterance; if the replica is lost, have another do it again."""
        heard, lost = Heard(), 0
        while True:
            try:
                if await self._attempt(generation, heard):
                    return
            except ReplicaLost as error:
                lost += 1
                self._failovers += 1
                self._wake.set()
                log.warning("replica lost", extra={"cause": str(error), "samples_heard": heard.count})
                if lost == ATTEMPTS:
                    raise EngineLost(f"{lost} engines were lost while they generated this speech") from None
            except Differs:
                raise EngineLost(
                    "The engine that generated this speech was lost, and another one continues it differently"
                ) from None

    async def _attempt(self, generation: Generation, heard: Heard) -> bool:
        """Generate an utterance on one replica, and deliver what was not heard of it.

        Returns False if no replica has begun it. Raises ReplicaLost, Differs, or the failure.
        """
        replay, tokens, patience_s, begun = heard.replay(), 0, self._answer_s, False
        async with self._replicas.speak(generation.utterance) as signs:
            while True:
                try:
                    sign = await _next(signs, patience_s)
                except TimeoutError:
                    if not begun:
                        return False
                    raise ReplicaLost(f"it has said nothing for {patience_s:g} s") from None
                begun, patience_s = True, self._silence_s
                if isinstance(sign, ServerError):
                    raise sign
                if sign is None:
                    continue
                samples = replay.take(sign.samples)
                if sign.done and not replay.caught_up:
                    raise Differs
                tokens += sign.tokens
                if replay.caught_up:
                    heard.add(samples)
                    generation.put(replace(sign, samples=samples, tokens=tokens))
                    tokens = 0
                if sign.done:
                    return True

    async def _poll(self) -> None:
        """Connect, then ask for the states of the replicas periodically."""
        connected = False
        while not self._stopping:
            self._wake.clear()
            try:
                if not connected:
                    await self._replicas.connect()
                    connected = True
                await self._update()
                interval_s = self._poll_s
            except Exception as error:
                connected = isinstance(error, UnsuitableEngines)
                told = isinstance(error, ModelNotLoaded)  # expected: no traceback is needed
                cause = error if told else ModelNotLoaded(f"The cluster does not answer: {error!r}")
                self._states, self.error, interval_s = (), cause, RECONNECT_S
                context = {"cause": str(cause), "retry_s": RECONNECT_S}
                log.error("cluster not usable", extra=context, exc_info=None if told else error)
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._wake.wait()

    async def _update(self) -> None:
        states = await self._replicas.states(self.active)
        if versions := {state.version for state in states} - {__version__}:
            raise UnsuitableEngines(
                f"The cluster's engines run dia-server {', '.join(sorted(versions))}, this server runs "
                f"{__version__}; `dia-server engine` updates the engines"
            )
        if others := {state.name for state in states} - {self.name}:
            raise UnsuitableEngines(
                f"The cluster's engines are {', '.join(sorted(others))}, not {self.name} (DIA_ENGINE)"
            )
        if fewer := [state.columns for state in states if state.columns < self._columns]:
            raise UnsuitableEngines(
                f"The cluster's engines have slots of {min(fewer)} columns, this server plans for "
                f"{self._columns} (DIA_MAX_COLUMNS)"
            )
        self._states, self.error = states, None
        if states:
            self._seen = time.monotonic()
        self._others = sum(state.others for state in states)
        self._send_waiting()


async def _next(signs: AsyncIterator[Sign], patience_s: float) -> Sign:
    """Return the next sign; raises TimeoutError, or ReplicaLost at an end without a last chunk."""
    try:
        # not `wait_for`: in Python 3.11 it loses a cancellation if a sign comes at the same time
        async with asyncio.timeout(patience_s):
            return await anext(signs)
    except StopAsyncIteration:
        raise ReplicaLost("it has ended early") from None
