"""A minimal WebSocket client, which can read slowly and disconnect without a closing handshake."""

import base64
import json
import os
import socket
import struct
import time
from types import TracebackType
from typing import Any, Self

from tests.live.address import PATIENCE_S

TEXT = 1


class WebSocketClient:
    """Reads raise TimeoutError after `timeout_s`."""

    def __init__(self, port: int, path: str, timeout_s: float = PATIENCE_S, host: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection((host, port), timeout_s)
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._read(1)
        self.status = int(head.split()[1])
        """HTTP status of the handshake: 101 if it was accepted."""

    def limit_receive_buffer(self) -> None:
        """Limit the receive buffer to about 64 KB."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

    def read_for(self, seconds: float, *, per_second: int) -> int:
        """Read raw bytes at a set rate; return their number."""
        until, count = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            count += len(self._read(per_second // 10))
            time.sleep(0.1)
        return count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.vanish()

    def send(self, message: Any) -> None:
        self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        payload = text.encode()
        if len(payload) < 126:
            length = bytes([0x80 | len(payload)])
        elif len(payload) < 2**16:
            length = bytes([0x80 | 126]) + struct.pack(">H", len(payload))
        else:
            length = bytes([0x80 | 127]) + struct.pack(">Q", len(payload))
        self._socket.sendall(bytes([0x80 | TEXT]) + length + bytes(4) + payload)  # masked with zeros

    def begin_text(self, size: int) -> None:
        """Send the header of a text message of `size` bytes."""
        header = bytes([0x80 | TEXT, 0x80 | 127]) + struct.pack(">Q", size) + bytes(4)
        self._socket.sendall(header)

    def send_part(self, count: int) -> None:
        """Send the next `count` bytes of the message."""
        self._socket.sendall(b"x" * count)

    def receive(self) -> Any:
        """Return the next message: bytes, decoded JSON of a text, or None for a close frame."""
        while True:
            first, length = self._read(2)
            if length >= 126:
                kind, size = (">H", 2) if length == 126 else (">Q", 8)
                (length,) = struct.unpack(kind, self._read(size))
            payload = self._read(length)
            match first & 0xF:
                case 1:
                    return json.loads(payload)
                case 2:
                    return payload
                case 8:
                    return None

    def vanish(self) -> None:
        """Close the TCP connection without a closing handshake."""
        self._socket.close()

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            received = self._socket.recv(count - len(data))
            if not received:
                raise ConnectionError("The server has closed the connection")
            data += received
        return data
