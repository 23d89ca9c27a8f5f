"""Runs Granian with one worker, one log, and a graceful shutdown with a deadline.

Granian waits for running responses without a limit, and does not tell the application that it is stopping. So
the main process first sends the worker SHUTDOWN_SIGNAL, on which the application enforces the deadline.

A client whose machine or network fails does not close its connection, and Granian does not detect that. TCP
keepalive and a user timeout, set on the listening socket, make the kernel close such connections.
"""

import gc
import os
import signal
import socket
import sys
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import structlog
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import MPServer

from dia_server import logs
from dia_server.crash_mark import CrashMarks
from dia_server.settings import Settings

try:
    import resource
except ImportError:  # Windows has no such module
    resource = None  # type: ignore[assignment]

log = structlog.get_logger()

SHUTDOWN_SIGNAL = getattr(signal, "SIGUSR1", None)
"""Signal that starts the worker's graceful shutdown; None on Windows."""

KILL_AFTER_S = 5
"""Seconds between the shutdown timeout and SIGKILL, which ends work that cannot be cancelled: a response to a
client that does not read, a model download. Jobs survive SIGKILL as they survive a power failure."""

GONE_AFTER_S = 60
"""Seconds after which the kernel closes a connection whose peer neither answers nor reads; Linux only."""

MAX_CONNECTIONS = 8192
"""Maximum open connections; further ones wait in the kernel's queue."""
SPARE_FILES = 1024 + 256
"""File descriptors needed besides connections: a second one for each of the 1024 WebSockets, and 256 for the
database, recordings and engines."""

HTTP1 = HTTP1Settings(header_read_timeout=30_000, max_buffer_size=64 * 1024)
"""Limits per connection: 30,000 ms to receive a request's headers, and a buffer of 64 KiB, which bounds the
headers and the part of a response that the client has not read."""


IMAGE_MARK = Path(sys.prefix) / "container-image"
"""File that exists only in the container image. There `warn_if_exposed` does not warn, because published
ports decide which machines can connect."""


_listeners: list[socket.socket] = []
"""The listening socket, which the worker inherits; empty on platforms other than Linux."""


def is_listening() -> bool:
    """Return whether connections are accepted; True on platforms where that is unknown."""
    return all(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for listener in _listeners)


def is_running(process: BaseProcess) -> bool:
    """Return whether `process` has not ended yet.

    `process.is_alive()` may still be true after its end, while another thread waits for the process. Granian
    has such a thread, and would report that it kills a worker that has already stopped.
    """
    return not wait([process.sentinel], timeout=0)


class GracefulServer(MPServer):
    _ssp: Any
    _shd: Any
    _sso: Any
    crash_marks: CrashMarks

    def _init_shared_socket(self) -> None:
        """On Linux, open the listening socket in this process; connections inherit its TCP options."""
        super()._init_shared_socket()  # type: ignore[no-untyped-call]
        if sys.platform == "linux":
            self._shd, self._ssp = self._ssp.build(), None
            self._sso = socket.socket(fileno=self._shd.get_fd())
            _listeners.append(self._sso)
            self._sso.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._sso.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, GONE_AFTER_S // 2)
            self._sso.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, GONE_AFTER_S // 4)
            self._sso.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_AFTER_S * 1000)

    def _spawn_worker(self, *args: Any, **kwargs: Any) -> Any:
        worker = super()._spawn_worker(*args, **kwargs)
        worker.is_alive = partial(is_running, worker.inner)  # type: ignore[method-assign]
        return worker

    def shutdown(self, exit_code: int = 0) -> None:
        """Stop the server; leave a crash mark if a signal such as SIGSEGV ended the HTTP worker.

        Signals that this process sent leave no mark.
        """
        for index in self.interrupt_children:
            code = self.wrks[index].inner.exitcode
            if code is not None and code < 0:
                cause = signal.Signals(-code).name
                log.error("server process crashed", cause=cause)
                self.crash_marks.leave(cause)
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        if SHUTDOWN_SIGNAL is not None:
            for worker in self.wrks:
                if worker.inner.is_alive():
                    os.kill(worker.inner.pid, SHUTDOWN_SIGNAL)
        super().signal_handler_interrupt(*args, **kwargs)  # type: ignore[no-untyped-call]


def warn_if_exposed(conf: Settings, image_mark: Path = IMAGE_MARK) -> None:
    if conf.beyond_loopback and not conf.api_keys and not image_mark.exists():
        log.warning("other machines can use this server without a key; set DIA_API_KEYS", host=conf.host)


def raise_connection_limit(resource: Any = resource) -> int:
    """Raise this process's limit of open files if it is too low; return the maximum number of connections.

    This is MAX_CONNECTIONS if the hard limit allows these and SPARE_FILES, else half of the hard limit. The
    other half is for other files: without a free descriptor, Granian calls accept in a busy loop.
    """
    if resource is None:
        return MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_CONNECTIONS
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return MAX_CONNECTIONS if allowed == wanted else max(1, allowed // 2)


def run(conf: Settings) -> None:
    """Serve until SIGINT or SIGTERM."""
    # the worker inherits SIG_IGN; otherwise the signal would kill it before it sets its own handler
    if SHUTDOWN_SIGNAL is not None:
        signal.signal(SHUTDOWN_SIGNAL, signal.SIG_IGN)
    logs.configure(conf.log_format, conf.log_level)
    warn_if_exposed(conf)
    gc.disable()  # a forked worker imports its modules faster; `create_lasting_app` enables it again
    server = GracefulServer(
        "dia_server.app:create_lasting_app",
        address=conf.host,
        port=conf.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1,
        backpressure=raise_connection_limit(),
        workers=1,
        workers_kill_timeout=conf.shutdown_timeout + KILL_AFTER_S,
        runtime_threads=1,
        loop=Loops.auto,
        factory=True,
        log_level=LogLevels.warning,  # lifespan.py and `Announcement` log start and stop
        log_dictconfig=logs.dict_config(conf.log_format, conf.log_level),
    )
    server.crash_marks = CrashMarks(conf.data_dir)
    server.serve()
