"""A limit on a WebSocket's message while it arrives.

Granian collects up to 64 MiB of a message before it hands it over, and has no setting for that. On Linux the
kernel tells how much a connection has received, so one that receives too much for one message is closed.
Elsewhere Granian's limit holds.
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

if sys.platform == "linux":
    import fcntl
    import termios

MAX_RECEIVED = 2 * 1024 * 1024
"""Bytes that a connection may receive for one message, frame headers included."""
INTERVAL_S = 0.25
"""Seconds between two looks at a connection; 64 MiB take about that long on the same machine."""
BYTES_RECEIVED = struct.Struct("=128xQ")
"""`tcpi_bytes_received` in Linux's `struct tcp_info`."""


@asynccontextmanager
async def limit_message_size(scope: Scope) -> AsyncIterator[Callable[[], None]]:
    """Close the connection of `scope` when too much arrives between two calls of what this yields."""
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
        """Return the bytes that Granian has read, as opposed to those that wait in the kernel."""
        info = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_RECEIVED.size)
        received: int = BYTES_RECEIVED.unpack(info)[0]
        return received - _unread(self._connection)


def _unread(connection: socket.socket) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.FIONREAD, count)
    return count[0]


def _find(scope: Scope) -> socket.socket | None:
    """Return a duplicate of the connection with the client of `scope`, which Granian does not hand out."""
    client = scope.get("client")
    if client is None:
        return None
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            found = socket.fromfd(int(name), family, socket.SOCK_STREAM)
        except OSError:  # closed meanwhile
            continue
        try:
            if found.getpeername()[:2] == (client[0], int(client[1])):  # Granian gives the port as text
                return found
        except OSError:  # not connected
            pass
        found.close()
    return None
