"""Parent's side: starts one child process, sends it calls, and replaces it after a crash."""

import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, BinaryIO, Concatenate, Generic, ParamSpec, TypeVar, cast

import msgspec

from dia_server import errors
from dia_server.errors import Overloaded, ServerError
from dia_server.native.child import FINAL_RESULT, OUT_OF_MEMORY, is_file, send_file, serve, signature
from dia_server.units import MIB

log = logging.getLogger(__name__)

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

HAS_FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()
METHOD = "forkserver" if HAS_FORKSERVER and sys.version_info[:3] > (3, 11, 0) else "spawn"
"""Start method of child processes: "forkserver", or "spawn" on Windows and on Python 3.11.0, whose fork
server accepts commands from any local user (CVE-2022-42919). "fork" would copy locks of other threads."""
PRELOADED = ["dia_server.cli", "dia_server.native.child", "dia_server.engine.espeak"]
"""Modules that the fork server imports once, so that a child starts in 10 ms. They must not start threads."""
START_S = 60.0
"""Default of `start_s`: maximum seconds for a child to start and create its object."""
START_PAUSES_S = (0.02, 0.1, 0.4)
"""Seconds to wait before the first, second and third retry of a failed process start."""
RETRY_S = 5
"""Retry-After, in seconds, if no child can be started."""
MAX_CRASHES = 2
"""Maximum child crashes per call; after that many, the call's input is assumed to be the cause."""
MAX_ANSWER = 64 * MIB
"""Maximum size of an answer in bytes; a minute of audio takes 5 MB."""
EXIT_S = 1.0
"""Maximum seconds for a child to exit after its pipe is closed, before it is killed."""


class NativeFailure(ServerError):
    """A call crashed MAX_CRASHES children, or exceeded a limit of time or memory (see the message)."""


class NativeUnavailable(Overloaded):
    """No child can be started at present, whatever the call's input."""


class Closed(ServerError):
    """The worker was closed before or during the call."""


class NativeWorker(Generic[S]):
    """Runs methods of one object in a child process; `call` blocks. Only `close` is thread-safe."""

    def __init__(
        self,
        name: str,
        factory: Callable[[], S],
        *,
        deadline_s: float,
        memory: int | None,
        start_s: float | None = START_S,
    ) -> None:
        """Prepare a worker whose child creates its object with `factory`, which must be picklable.

        `deadline_s` is the maximum seconds per call, and `start_s` those to start the child and create its
        object. On Linux, calls may enlarge the child's address space by `memory` bytes; if it is still larger
        by more than 1/8 of `memory` after a call, the child is replaced. None for `start_s` or `memory` means
        no limit.
        """
        self._name = name
        self._factory = factory
        self._deadline_s = deadline_s
        self._start_s = start_s
        self._memory = memory
        self._is_used = False
        """Whether the current child has answered a call."""
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._is_ready = False
        self._closed = False

    def start(self) -> None:
        """Start the child if there is none, but do not wait until it is ready; raises NativeUnavailable."""
        for pause_s in (*START_PAUSES_S, None):
            try:
                return self._start()
            except (OSError, EOFError) as error:  # no more processes or files allowed, or a dead fork server
                if pause_s is None:
                    raise NativeUnavailable(
                        f"The {self._name} process cannot be started: {error}", retry_after=RETRY_S
                    ) from error
                time.sleep(pause_s)

    def _start(self) -> None:
        if self._process is not None:
            return
        context = multiprocessing.get_context(METHOD)
        context.set_forkserver_preload(PRELOADED)
        ours, theirs = context.Pipe()
        process = cast(
            BaseProcess,
            context.Process(  # type: ignore[attr-defined]
                target=serve,
                args=(theirs, self._factory, self._memory, self._deadline_s),
                name=f"dia-{self._name}",
                daemon=True,
            ),
        )
        with _uninterrupted():
            process.start()
        theirs.close()  # so that the pipe reports EOF when the child exits
        self._process, self._connection = process, ours
        if self._closed:  # `close` was called by another thread during the start
            process.kill()

    def wait(self) -> None:
        """Start the child and wait until its object is created.

        Raises the factory's error as a ServerError, NativeUnavailable or Closed.
        """
        self._run(lambda: None)

    def call(self, method: Callable[Concatenate[S, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `method` of the child's object with positional arguments; return its result.

        If the child crashes, the call is retried once in a new child. Raises NativeFailure,
        NativeUnavailable, Closed, or the error of `method` as a ServerError.
        """
        assert not kwargs, "arguments are positional"
        files = [(cast(BinaryIO, arg), cast(BinaryIO, arg).fileno()) for arg in args if is_file(arg)]
        values = [None if is_file(arg) else arg for arg in args]
        kind = signature(method)[1]
        answer = self._run(lambda: msgspec.convert(self._ask((method.__name__, values), files), kind))
        return cast(R, answer)

    def close(self) -> None:
        """Kill the child; a call in progress in another thread raises Closed."""
        self._closed = True
        process = self._process
        if process is not None and process.is_alive():
            process.kill()
            process.join()

    def _run(self, work: Callable[[], T]) -> T:
        """Run `work` when the child is ready.

        Retries in a new child: once after a crash, and after a child that has answered earlier calls runs out
        of memory.
        """
        crashes, cause = 0, ""
        while not self._closed:
            self.start()
            if crashes == MAX_CRASHES:
                raise NativeFailure(f"the {self._name} process crashed {crashes} times on it ({cause})")
            try:
                self._await_ready()
                return work()
            except TimeoutError as error:
                self._end_child()
                raise NativeFailure(f"the {self._name} process took {error}") from None
            except MemoryError:
                was_used = self._is_used
                self._end_child()
                if not was_used:  # a used child may lack memory that earlier calls leaked: retry
                    most = "" if self._memory is None else f": the limit is {self._memory // MIB} MiB"
                    raise NativeFailure(f"the {self._name} process took too much memory{most}") from None
            except (EOFError, OSError, msgspec.MsgspecError):  # MsgspecError: the answer is malformed
                cause = self._end_child()
                crashes += 1
                log.warning("native process crashed", extra={"child": self._name, "cause": cause})
        raise Closed(f"The {self._name} process is closed")

    def _await_ready(self) -> None:
        if self._is_ready:
            return
        try:
            self._answer(self._start_s)
        except ServerError:
            self._end_child()
            raise
        except (EOFError, OSError, MemoryError, msgspec.MsgspecError) as error:
            cause = self._end_child()
            if self._closed:
                raise Closed(f"The {self._name} process is closed") from None
            raise NativeUnavailable(
                f"The {self._name} process cannot be started: {error or cause}", retry_after=RETRY_S
            ) from None
        self._is_ready = True

    def _ask(self, question: tuple[str, list[Any]], files: list[tuple[BinaryIO, int]]) -> Any:
        assert self._connection is not None
        assert self._process is not None
        for file, _ in files:
            file.seek(0)
        self._connection.send_bytes(msgspec.msgpack.encode(question))
        for _, descriptor in files:
            send_file(self._connection, descriptor, self._process.pid)
        answer = self._answer(self._deadline_s)
        self._is_used = self._process is not None
        return answer

    def _answer(self, deadline_s: float | None) -> Any:
        """Return the child's next result.

        Raises the call's error, MemoryError if the child ran out of memory, TimeoutError after `deadline_s`,
        or EOFError if the child has exited.
        """
        assert self._connection is not None
        if not self._connection.poll(deadline_s):
            raise TimeoutError(f"longer than {deadline_s:g} s")
        raw = self._connection.recv_bytes(MAX_ANSWER)
        kind, value = msgspec.msgpack.decode(raw, type=tuple[str, Any])
        if kind == FINAL_RESULT:
            self._end_child()
            return value
        if kind == "returned":
            return value
        if kind == OUT_OF_MEMORY:
            raise MemoryError
        raise _raised(kind, str(value))

    def _end_child(self) -> str:
        """Stop the child, busy or idle; return the signal that ended it, or its exit code, as text."""
        assert self._process is not None
        assert self._connection is not None
        self._connection.close()  # an idle child then exits by itself
        self._process.join(EXIT_S)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        self._process = self._connection = None
        self._is_ready = False
        self._is_used = False
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Block SIGINT while a child is started. The child inherits this: Ctrl-C must not interrupt it."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raised(kind: str, message: str) -> ServerError:
    """Return an instance of the class of errors.py named `kind`, or a ServerError if there is none."""
    named = getattr(errors, kind, None)
    if isinstance(named, type) and issubclass(named, ServerError):
        return named(message)
    return ServerError(f"{kind}: {message}")
