"""Limits the size of a WebSocket message while it arrives.

Granian buffers up to 64 MiB of a message before it delivers it, and has no setting for that. On Linux the
kernel reports the bytes that a connection has received, so a connection is closed when it receives too many
for one message. On other systems only Granian's limit applies.
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
"""Seconds between checks of a connection; 64 MiB take about as long on the same machine."""
BYTES_RECEIVED = struct.Struct("=128xQ")
"""Layout up to `tcpi_bytes_received` in Linux's `struct tcp_info`."""


@asynccontextmanager
async def limit_message_size(scope: Scope) -> AsyncIterator[Callable[[], None]]:
    """Yield a function to call after each message; close the connection if too much arrives between calls."""
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
        """Return the bytes that Granian has read, without those still in the kernel's buffer."""
        info = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_RECEIVED.size)
        received: int = BYTES_RECEIVED.unpack(info)[0]
        return received - _unread(self._connection)


def _unread(connection: socket.socket) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.FIONREAD, count)
    return count[0]


def _find(scope: Scope) -> socket.socket | None:
    """Return a duplicate of the client's socket, found by its peer address: Granian does not expose it."""
    client = scope.get("client")
    if client is None:
        return None
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            found = socket.fromfd(int(name), family, socket.SOCK_STREAM)
        except OSError:  # closed in the meantime
            continue
        try:
            if found.getpeername()[:2] == (client[0], int(client[1])):  # Granian passes the port as a string
                return found
        except OSError:  # not connected
            pass
        found.close()
    return None
