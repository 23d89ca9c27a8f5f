"""Runs a batch in its own process: always on CUDA, and elsewhere if there are several engines.

A CUDA fault then ends the worker process, not the server, and no engine contends with another or with the web
server for Python's interpreter lock. Utterances, chunks (NumPy arrays), errors, log records and load progress
cross the pipe, but never tensors, so the parent needs no torch.

    engine = Engine("dia", partial(load_dia, device="cuda:1"), max_waiting=32, own_process=True)

The worker's steps never wait for the parent: admissions and cancellations go in as messages, chunks and
failures come out as messages, and each direction has its own thread in the worker. While the parent is busy,
or even stopped, the worker generates all the utterances that it holds. The audio that it then keeps for the
parent is bounded, because only the parent admits: at most `slots` whole utterances (in Dia, 36 s or 6.4 MB
each).

A pipe for the calls and a socket for the messages, instead of multiprocessing's managers or ZeroMQ: there is
one child per model, both keep the order, and a crash of the child closes both.
"""

import logging
import multiprocessing
import os
import pickle
import queue
import signal
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from typing import Any

from dia_server.engine.batch import Batch, Progress, as_server_error
from dia_server.engine.types import LoadModel, Model, Utterance
from dia_server.errors import ModelNotLoaded, ServerError

log = logging.getLogger(__name__)

RESTART_S = 10
"""Retry-After, in seconds, for requests refused while a worker restarts."""
EXIT_S = 10.0
"""Maximum seconds for a worker to close its model and exit, before it is killed."""
SWITCH_S = 0.001
"""Seconds that a thread of the parent computes in Python before another one gets the interpreter lock. With
Python's own 5 ms a chunk, which needs the lock several times, is delivered up to 20 ms late."""
SENT_AT_ONCE = 32
"""Maximum messages that a worker sends as one: after a stop of the parent, each is read in one piece."""

LENGTH = struct.Struct("!Q")
"""Number of bytes of the pickled messages that follow."""

Message = tuple[str, Any]
"""Kind and content of a message from the worker."""
Call = tuple[str, tuple[Any, ...]]
"""Method of the batch, and arguments."""


class WorkerDied(ServerError):
    """The worker process has ended and will be replaced; the utterances it ran are lost."""


class WorkerBatch:
    """A `Runner` whose batch is in a worker process. A dead worker is replaced.

    The process of an idle worker is only looked at by `admit`.
    """

    def __init__(
        self, load_model: LoadModel, report: Callable[[float], None], emit: Callable[[Progress], None]
    ) -> None:
        """Start the worker and wait until `load_model`, a picklable function, has loaded its model there.

        `emit` is called by `advance` and `admit`. Raises the error of `load_model`: a ServerError as it is,
        any other as a RuntimeError. Raises WorkerDied if the process ends without an answer.
        """
        self.slots = 0
        self.notes: tuple[str, ...] = ()
        self._load_model, self._report, self._emit = load_model, report, emit
        self._running: set[int] = set()
        """Tickets of the utterances that were sent to the worker and have not ended."""
        self._settled = False
        """Whether the worker's model is loaded, and not being reset."""
        self._spawn()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        try:
            self._receive()
        except BaseException:
            self.close()
            raise

    def admit(self, ticket: int, utterance: Utterance) -> None:
        """Send `utterance` to the worker, or to a new one if it died while idle.

        If that fails, or the worker has just died, the failure is emitted.
        """
        try:
            if not self._running and not self._process.is_alive():
                self._restart()
            self._send("admit", ticket, utterance)
            self._running.add(ticket)
        except Exception as error:  # noqa: BLE001 - fails this utterance only
            self._emit(Progress([(ticket, as_server_error(error))]))

    def cancel(self, ticket: int) -> None:
        self._running.discard(ticket)
        with suppress(ModelNotLoaded):  # a dead worker has no slots to free
            self._send("cancel", ticket)

    def advance(self) -> None:
        """Emit what the worker has made; waits until there is something, or until `wake` is called.

        Waits on while the worker resets its model. If the worker has died, its utterances fail and another is
        started; raises the error if that fails.
        """
        ready = wait([self._events, self._woken])
        if self._woken in ready:
            self._woken.recv(4096)
        if self._events not in ready:
            return
        try:
            self._receive()
        except WorkerDied as death:
            failures = [(ticket, death) for ticket in self._running]
            self._running.clear()
            self._emit(Progress(failures))
            log.warning("worker replaced", extra={"cause": str(death)})
            self._restart()

    def wake(self) -> None:
        with suppress(BlockingIOError):  # full: `advance` will return anyway
            self._waker.send(b"\0")

    def close(self) -> None:
        self._end()
        self._waker.close()
        self._woken.close()

    def _spawn(self) -> None:
        """Start a worker process; if that fails, everything stays as it is."""
        spawn = multiprocessing.get_context("spawn")  # a forked process could not use CUDA
        with ExitStack() as theirs, ExitStack() as ours:
            connection, their_connection = spawn.Pipe()
            ours.callback(connection.close)
            theirs.callback(
                their_connection.close
            )  # so that `read_messages` finds the end when the worker exits
            events, their_events = socket.socketpair()
            ours.callback(events.close)
            theirs.callback(their_events.close)
            process = spawn.Process(
                target=_serve,
                args=(their_connection, their_events, self._load_model),
                name="dia-worker",
                daemon=True,
            )
            process.start()
            ours.pop_all()
        self._connection, self._events, self._process = connection, events, process
        self._settled = False

    def _end(self) -> None:
        self._connection.close()  # tells the worker to exit
        self._events.close()
        self._process.join(EXIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _restart(self) -> None:
        self._end()
        self._report(0.0)
        self._spawn()
        self._receive()
        self._report(1.0)

    def _send(self, method: str, *args: Any) -> None:
        try:
            self._connection.send((method, args))
        except OSError:
            raise ModelNotLoaded("The engine is restarting", retry_after=RESTART_S) from None

    def _receive(self) -> None:
        """Handle at least one message; go on until the worker is settled. Raises WorkerDied."""
        while True:
            try:
                messages: list[Message] = read_messages(self._events)
            except (EOFError, OSError):
                self._process.join(EXIT_S)
                code = self._process.exitcode
                raise WorkerDied(f"The engine's process ended unexpectedly (exit code {code})") from None
            for kind, content in messages:
                self._handle(kind, content)
            if self._settled:
                return

    def _handle(self, kind: str, content: Any) -> None:
        match kind:
            case "loaded":
                self._report(content)
            case "logged":
                _log_here(pickle.loads(content))
            case "failed":
                raise content
            case "settled":
                self.slots, self.notes = content
                self._settled = True
            case "made":
                self._settled = not content.resets
                self._running -= {
                    ticket for ticket, event in content.events if isinstance(event, Exception) or event.done
                }
                self._emit(content)
            case _:
                raise AssertionError(kind)


def read_messages(events: socket.socket) -> list[Message]:
    """Return the next messages; raises EOFError or OSError if the worker has ended.

    Needs the interpreter lock twice, however long the messages are; `Connection.recv` needs it every 200 kB.
    """
    size = bytearray(LENGTH.size)
    _fill(events, size)
    content = bytearray(*LENGTH.unpack(size))
    _fill(events, content)
    messages: list[Message] = pickle.loads(content)
    return messages


def _fill(events: socket.socket, buffer: bytearray) -> None:
    left = memoryview(buffer)
    while left:  # in general once: a signal, or a stop of the process, ends MSG_WAITALL early
        count = events.recv_into(left, flags=socket.MSG_WAITALL)
        if not count:
            raise EOFError
        left = left[count:]


def _log_here(record: logging.LogRecord) -> None:
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


# Everything below runs in the worker process.


class Outbox:
    """Sends messages to the parent, in order, on its own thread; if the parent is gone, drops them."""

    def __init__(self, events: socket.socket) -> None:
        self.broken = False
        """Whether the parent has closed the socket or exited."""
        self._events = events
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, kind: str, content: Any) -> None:
        """Queue a message, whose `content` must be picklable."""
        self._messages.put((kind, content))

    def close(self) -> None:
        """Wait until all messages are sent."""
        self._messages.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (message := self._messages.get()) is not None:
            messages = [message]
            while len(messages) < SENT_AT_ONCE and not self._messages.empty():
                if (message := self._messages.get()) is None:
                    self._messages.put(None)
                    break
                messages.append(message)
            try:
                content = pickle.dumps(messages, pickle.HIGHEST_PROTOCOL)
                self._events.sendall(LENGTH.pack(len(content)))
                self._events.sendall(content)
            except OSError:
                self.broken = True
                return


class Inbox:
    """Receives the parent's calls on its own thread, so that the parent waits for no step."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="inbox", daemon=True).start()

    def take(self, *, block: bool) -> list[Call] | None:
        """Return all calls that have arrived, or None if the parent has closed the pipe.

        With `block` waits until there is one.
        """
        calls: list[Call] = []
        while block or not self._calls.empty():
            if (call := self._calls.get()) is None:
                return None
            calls.append(call)
            block = False
        return calls

    def _run(self) -> None:
        try:
            with suppress(EOFError, OSError):
                while True:
                    self._calls.put(self._connection.recv())
        finally:
            self._calls.put(None)


class Forward(QueueHandler):
    """Sends log records to the parent."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(queue.SimpleQueue())
        self._outbox = outbox

    def enqueue(self, record: logging.LogRecord) -> None:
        self._outbox.put("logged", pickle.dumps(record))  # fails here if `extra` cannot be pickled


def _serve(connection: Connection, events: socket.socket, load_model: LoadModel) -> None:
    """Load the model in the worker process, then run utterances until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
    outbox = Outbox(events)
    root = logging.getLogger()
    root.addHandler(Forward(outbox))
    root.setLevel(logging.INFO)

    def report(share: float) -> None:
        if outbox.broken:
            raise BrokenPipeError("The server has ended")
        outbox.put("loaded", share)

    try:
        model = load_model(report)
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        outbox.put("failed", _portable(error))
        outbox.close()
        return
    outbox.put("settled", (model.slots, model.notes))
    try:
        _run(model, Inbox(connection), outbox)
        model.close()
    except Exception as error:
        log.error("worker's model failed", exc_info=error)
        outbox.close()
        os._exit(1)  # after a fault of the GPU a normal exit may hang
    outbox.close()


def _run(model: Model, inbox: Inbox, outbox: Outbox) -> None:
    """Step the model while it has utterances, and follow the parent's calls between two steps."""

    def emit(progress: Progress) -> None:
        outbox.put("made", progress)
        if progress.resets:
            resets.append(progress)

    resets: list[Progress] = []
    batch = Batch(model, emit)
    while (calls := inbox.take(block=not batch.busy)) is not None:
        for method, args in calls:
            assert method in ("admit", "cancel")
            getattr(batch, method)(*args)
        batch.advance()
        if resets:
            resets.clear()
            outbox.put("settled", (model.slots, model.notes))


def _portable(error: Exception) -> Exception:
    """Return a ServerError unchanged; log any other error and return a RuntimeError without torch objects."""
    if isinstance(error, ServerError):
        return error
    log.error("worker's model failed", exc_info=error)
    return RuntimeError(f"{type(error).__name__}: {error}")
