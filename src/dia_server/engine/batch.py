"""The utterances that a model runs: which slot each has, and what has come of it.

A `Batch` is advanced by the thread that owns the model: the engine's, or the main thread of a worker process.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dia_server.engine.types import Chunk, Model, Utterance
from dia_server.errors import ServerError

log = logging.getLogger(__name__)

BEGUN_AT_ONCE = 4
"""Maximum utterances begun between two steps; one delays running utterances by a few ms on a GPU."""

Event = tuple[int, Chunk | Exception]
"""A ticket, and a chunk or the failure of its utterance."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Events of some steps, in order, and the work of those steps (see `types.Work`)."""

    events: Sequence[Event]
    steps: int = 0
    slot_steps: int = 0
    resets: bool = False
    """Whether a step failed, after which the model is reset; all utterances that ran are among `events`."""


class Runner(Protocol):
    """A batch, in this process or in another; only the engine's thread calls it, except for `wake`.

    An utterance is known by its ticket, a number that is used once. It has ended after an event that is an
    exception or a chunk that is `done`; its slot is then free. The events are passed to a callback.
    """

    slots: int
    notes: tuple[str, ...]

    def admit(self, ticket: int, utterance: Utterance) -> None:
        """Add `utterance`; at most `slots` utterances may be admitted and not ended or cancelled."""

    def cancel(self, ticket: int) -> None:
        """Free the slot of an utterance; events that are already under way may still come."""

    def advance(self) -> None:
        """Emit the next events; returns without any after one step, or after `wake`.

        Called while there are utterances. Raises an error after which no utterance can run any more.
        """

    def wake(self) -> None:
        """Make `advance` return soon; callable from any thread."""

    def close(self) -> None:
        """Release the model."""


class Batch:
    """A `Runner` that steps a model on the calling thread."""

    def __init__(self, model: Model, emit: Callable[[Progress], None]) -> None:
        """`emit` is called by `advance`, at most once in each call, if there are events."""
        self.slots, self.notes = model.slots, model.notes
        self._model, self._emit = model, emit
        self._waiting: dict[int, Utterance] = {}
        """Admitted utterances that have no slot yet, by ticket."""
        self._running: dict[int, int] = {}
        """Tickets by slot."""
        self._steps = self._slot_steps = 0
        """Work since the last event."""

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def admit(self, ticket: int, utterance: Utterance) -> None:
        """Let a later `advance` begin `utterance`; at most `slots` utterances may be admitted at a time."""
        self._waiting[ticket] = utterance

    def cancel(self, ticket: int) -> None:
        """Free the slot of an utterance, which has no more events; do nothing if it has ended."""
        self._waiting.pop(ticket, None)
        for slot in [slot for slot, running in self._running.items() if running == ticket]:
            self._release(slot)

    def advance(self) -> None:
        """Begin at most BEGUN_AT_ONCE utterances, then step the model; emit the events.

        If the step fails, all running utterances fail and the model is reset. Raises the errors of
        `Model.reset` and `Model.release`, after which the model is unusable.
        """
        events = self._begin()
        failed = False
        if self._running:
            try:
                self._step(events)
            except Exception as error:  # such as out of memory: fails all running utterances, not later ones
                log.error("step failed", extra={"running": len(self._running)}, exc_info=error)
                events += [(ticket, as_server_error(error)) for ticket in self._running.values()]
                self._running.clear()
                failed = True
        if events:
            progress = Progress(events, self._steps, self._slot_steps, resets=failed)
            self._steps = self._slot_steps = 0
            self._emit(progress)  # before `reset`, which may raise
        if failed:  # outside `except`, where the traceback would keep tensors alive
            self._model.reset()
            self.notes = self._model.notes

    def wake(self) -> None:
        """Do nothing: `advance` waits for no more than one step."""

    def close(self) -> None:
        self._model.close()

    def _begin(self) -> list[Event]:
        failures: list[Event] = []
        for ticket in [*self._waiting][:BEGUN_AT_ONCE]:
            slot = next(slot for slot in range(self.slots) if slot not in self._running)
            self._running[slot] = ticket
            try:
                self._model.admit(slot, self._waiting.pop(ticket))
            except Exception as error:  # noqa: BLE001 - fails this utterance only, not the batch
                self._release(slot)
                failures.append((ticket, as_server_error(error)))
        return failures

    def _step(self, events: list[Event]) -> None:
        outcomes = self._model.step()
        self._steps += 1
        self._slot_steps += len(self._running)
        for slot, outcome in outcomes.items():
            event = outcome if isinstance(outcome, Chunk) else as_server_error(outcome)
            events.append((self._running[slot], event))
            if isinstance(event, Exception) or event.done:
                self._release(slot)

    def _release(self, slot: int) -> None:
        del self._running[slot]
        self._model.release(slot)


def as_server_error(error: Exception) -> Exception:
    """Return a ServerError without its traceback; for any other error, "Generation failed: ..."."""
    if isinstance(error, ServerError):
        return without_traceback(error)
    return ServerError(f"Generation failed: {error}")


def without_traceback(error: Exception) -> Exception:
    """Clear the traceback and causes of `error`: their frames would keep tensors alive. Returns `error`."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
