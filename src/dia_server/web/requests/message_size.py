"""Limits the size of a WebSocket message while it arrives.

Granian buffers a whole message before it delivers it, up to 64 MiB, and has no setting for that. On Linux the
kernel reports how many bytes a connection has received, so a connection that has received more than
MAX_RECEIVED for one message is closed. On other systems only Granian's limit applies.
"""

import array
import asyncio
import os
import socket
import stat
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from litestar.types import Scope

from dia_server.units import MIB

if sys.platform == "linux":
    import fcntl
    import termios

MAX_RECEIVED = 2 * MIB
"""Maximum bytes received for one message, including frame headers."""
INTERVAL_S = 0.25
"""Seconds between checks of a connection; a client on the same machine sends 64 MiB in about this time."""
BYTES_RECEIVED = struct.Struct("=128xQ")
"""Layout of Linux's `struct tcp_info` up to `tcpi_bytes_received`, the only field that is read."""


@asynccontextmanager
async def limit_message_size(scope: Scope) -> AsyncIterator[Callable[[], None]]:
    """Yield a function to call after each message.

    On Linux, the connection is closed if more than MAX_RECEIVED bytes arrive between two calls.
    """
    connection = await asyncio.to_thread(_find, scope) if sys.platform == "linux" else None
    if connection is None:
        yield lambda: None
        return
    with connection:
        watch = _Watch(connection)
        try:
            yield watch.message_complete
        finally:
            watch.stop()


class _Watch:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._before = self._received()
        self._timer = self._loop.call_later(INTERVAL_S, self._look)

    def message_complete(self) -> None:
        self._before = self._received()

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._received() - self._before > MAX_RECEIVED:
            self._connection.shutdown(socket.SHUT_RDWR)
            return
        self._timer = self._loop.call_later(INTERVAL_S, self._look)

    def _received(self) -> int:
        """Return how many bytes Granian has read from the connection; the kernel's buffer does not count."""
        info = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_RECEIVED.size)
        received: int = BYTES_RECEIVED.unpack(info)[0]
        return received - _unread(self._connection)


def _unread(connection: socket.socket) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.FIONREAD, count)
    return count[0]


def _find(scope: Scope) -> socket.socket | None:
    """Return a duplicate of the client's socket, None if it is not found.

    Granian does not expose the socket, so it is searched by peer address among the open file descriptors.
    """
    client = scope.get("client")
    if client is None:
        return None
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            found = socket.fromfd(int(name), family, socket.SOCK_STREAM)
        except OSError:  # the descriptor has been closed since it was listed
            continue
        try:
            if found.getpeername()[:2] == (client[0], int(client[1])):  # Granian passes the port as a string
                return found
        except OSError:  # a listening socket has no peer
            pass
        found.close()
    return None
