"""Runs a model in its own process: always on CUDA, and elsewhere if there are several engines.

A CUDA fault then ends the worker process, not the server, and no engine contends with another or with the web
server for Python's interpreter lock. The `Engine` is unchanged, a thread that calls a `Model`; `WorkerModel`
forwards the calls over a pipe to the child that holds the real model. Utterances, chunks (NumPy arrays),
errors, log records and load progress cross the pipe, but never tensors, so the parent needs no torch.

    engine = Engine("dia", in_worker(partial(load_dia, device="cuda:1")), max_waiting=32)

Plain pipes instead of multiprocessing's managers or ZeroMQ: there is one child per model, messages stay in
order, and a crash of the child closes the pipe.
"""

import logging
import multiprocessing
import queue
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from typing import Any

from dia_server.engine.types import Chunk, LoadModel, Model, Utterance
from dia_server.errors import ModelNotLoaded, ServerError

log = logging.getLogger(__name__)

RESTART_S = 10
"""Retry-After, in seconds, for requests refused while a worker restarts."""
EXIT_S = 10.0
"""Maximum seconds for a worker to close its model and exit, before it is killed."""


class WorkerDied(ServerError):
    """The worker process has ended and will be replaced; the utterances it ran are lost."""


def in_worker(load_model: LoadModel) -> LoadModel:
    """Return a loader that runs `load_model`, a picklable function, in a new process."""
    return partial(WorkerModel, load_model)


class WorkerModel:
    """A `Model` in a worker process. `reset` replaces a dead worker; so does `admit` if no slot is busy."""

    def __init__(self, load_model: LoadModel, report: Callable[[float], None]) -> None:
        """Start the worker and wait until its model is loaded.

        Raises the error of `load_model`: a ServerError as it is, any other as a RuntimeError. Raises
        WorkerDied if the process ends without an answer.
        """
        self.slots = 0
        self.notes: tuple[str, ...] = ()
        self._load_model = load_model
        self._report = report
        self._busy: set[int] = set()
        self._start()

    def admit(self, slot: int, utterance: Utterance) -> None:
        try:
            self._call("admit", slot, utterance)
        except WorkerDied:
            if self._busy:  # the next `step` fails the running utterances
                raise ModelNotLoaded("The engine is restarting", retry_after=RESTART_S) from None
            self._restart()
            self._call("admit", slot, utterance)
        self._busy.add(slot)

    def step(self) -> Mapping[int, Chunk | Exception]:
        outcomes: Mapping[int, Chunk | Exception] = self._call("step")
        return outcomes

    def release(self, slot: int) -> None:
        """Free `slot`; errors are only logged, because a dead worker also makes the next call fail."""
        self._busy.discard(slot)
        try:
            self._call("release", slot)
        except Exception as error:
            log.warning("slot not released", exc_info=error)

    def reset(self) -> None:
        """Reset the model; if that fails, as after a CUDA fault, replace the worker process."""
        self._busy.clear()
        try:
            self._call("reset")
        except Exception as error:
            log.warning("worker replaced", exc_info=error)
            self._restart()

    def close(self) -> None:
        self._connection.close()  # tells the worker to exit
        self._process.join(EXIT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")  # a forked process could not use CUDA
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(
            target=_serve, args=(theirs, self._load_model), name="dia-worker", daemon=True
        )
        self._process.start()
        theirs.close()  # so that `recv` raises EOFError when the worker exits
        try:
            self.slots, self.notes = self._answer()
        except BaseException:
            self.close()
            raise

    def _restart(self) -> None:
        self.close()
        self._report(0.0)
        self._start()
        self._report(1.0)

    def _call(self, method: str, *args: Any) -> Any:
        try:
            self._connection.send((method, args))
        except OSError:
            raise self._death() from None
        return self._answer()

    def _answer(self) -> Any:
        """Return the worker's next result or raise its error; handle progress and log records until then."""
        while True:
            try:
                kind, value = self._connection.recv()
            except (EOFError, OSError):
                raise self._death() from None
            if kind == "loaded":
                self._report(value)
            elif kind == "logged":
                _log_here(value)
            elif kind == "raised":
                raise value
            else:
                return value

    def _death(self) -> WorkerDied:
        self._process.join(EXIT_S)
        return WorkerDied(f"The engine's process ended unexpectedly (exit code {self._process.exitcode})")


def _serve(connection: Connection, load_model: LoadModel) -> None:
    """Load the model in the worker process, then answer calls until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
    root = logging.getLogger()
    root.addHandler(Forward(connection))
    root.setLevel(logging.INFO)
    try:
        model = load_model(lambda share: connection.send(("loaded", share)))
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        connection.send(("raised", _portable(error)))
        return
    connection.send(("returned", (model.slots, model.notes)))
    with suppress(EOFError, OSError):  # the parent has closed the pipe or exited
        while True:
            method, args = connection.recv()
            connection.send(_answer_to(model, method, args))
    model.close()


class Forward(QueueHandler):
    """Sends log records to the parent. The pipe needs no lock: only the thread that uses it writes logs."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(queue.SimpleQueue())
        self._connection = connection

    def enqueue(self, record: logging.LogRecord) -> None:
        self._connection.send(("logged", record))


def _log_here(record: logging.LogRecord) -> None:
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _answer_to(model: Model, method: str, args: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        match method:
            case "step":
                outcomes = model.step()
                return "returned", {
                    slot: _portable(outcome) if isinstance(outcome, Exception) else outcome
                    for slot, outcome in outcomes.items()
                }
            case "admit":
                model.admit(*args)
            case "release":
                model.release(*args)
            case "reset":
                model.reset()
            case _:
                raise AssertionError(method)
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        return "raised", _portable(error)
    return "returned", None


def _portable(error: Exception) -> Exception:
    """Return a ServerError unchanged; log any other error and return a RuntimeError without torch objects."""
    if isinstance(error, ServerError):
        return error
    log.error("worker's model failed", exc_info=error)
    return RuntimeError(f"{type(error).__name__}: {error}")
