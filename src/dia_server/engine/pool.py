"""Several engines, one per GPU, behind the interface of a single `Engine`."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dia_server.engine.engine import Engine
from dia_server.engine.generation import Generation
from dia_server.engine.types import EngineName, Utterance, Work


class EnginePool:
    """Submits each utterance to the most suitable engine and reports the combined state of all engines."""

    cluster = None

    def __init__(self, name: EngineName, make: Callable[[], Sequence[Engine]]) -> None:
        """Create an empty pool; `start` calls `make` to build the engines, and starts them."""
        self.name = name
        self._make = make
        self._engines: list[Engine] = []
        self._on_end: Callable[[Generation], None] = lambda _: None

    @property
    def worker_count(self) -> int:
        return len(self._engines)

    @property
    def ready(self) -> bool:
        """Whether at least one engine accepts utterances."""
        return any(engine.ready for engine in self._engines)

    @property
    def loaded(self) -> float:
        """Loaded share of the model, 0 to 1, as the mean over the engines."""
        return sum(engine.loaded for engine in self._engines) / max(1, len(self._engines))

    @property
    def error(self) -> Exception | None:
        """First engine's error if all engines have failed; None if at least one has not."""
        errors = [engine.error for engine in self._engines]
        return errors[0] if errors and all(errors) else None

    @property
    def slots(self) -> int:
        return sum(engine.slots for engine in self._engines if engine.ready)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(note for engine in self._engines for note in engine.notes))

    @property
    def active(self) -> int:
        return sum(engine.active for engine in self._engines)

    @property
    def busy(self) -> int:
        return sum(engine.busy for engine in self._engines)

    @property
    def work(self) -> Work:
        return sum((engine.work for engine in self._engines), Work())

    def waiting(self, *, background: bool) -> int:
        return sum(engine.waiting(background=background) for engine in self._engines)

    def watch(self, on_end: Callable[[Generation], None]) -> None:
        """Set the callback of all engines (see `Engine.watch`); must be called before `start`."""
        self._on_end = on_end

    def start(self) -> None:
        self._engines = list(self._make())
        assert self._engines
        for engine in self._engines:
            engine.watch(self._on_end)
            engine.start()

    def load(self) -> None:
        """Call `Engine.load` on every engine."""
        for engine in self._engines:
            engine.load()

    def stop(self) -> None:
        """Stop all engines in parallel; blocks until all have stopped."""
        with ThreadPoolExecutor(len(self._engines)) as threads:
            list(threads.map(Engine.stop, self._engines))

    def submit(self, utterance: Utterance, *, background: bool = False) -> Generation:
        """Submit `utterance` to the most suitable engine; raises the errors of `Engine.submit`."""
        assert self._engines, "not started"
        voice = utterance.prompt.key if utterance.prompt else utterance.voice
        best = max(range(len(self._engines)), key=lambda i: self._suitability(i, voice))
        return self._engines[best].submit(utterance, background=background)

    def _suitability(self, i: int, voice: str) -> tuple[bool, bool, int, bytes]:
        """Return the sort key of engine `i` for `voice`; the engine with the highest key is chosen.

        Ready engines come first and, among these, loaded ones with a free slot. Then the highest number of
        free slots wins: slots minus running and queued utterances, so it can be negative. Ties are broken
        by rendezvous hashing of engine and voice, so that the same voice goes to the same engine, which may
        have cached the voice's prompt.
        """
        engine = self._engines[i]
        free = engine.slots - engine.active
        rank = hashlib.blake2b(f"{i} {voice}".encode(), digest_size=8).digest()
        return engine.ready, engine.loaded >= 1 and free > 0, free, rank
