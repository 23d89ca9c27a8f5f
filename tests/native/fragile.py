"""An object whose methods fail in the ways of native code: crash, hang, leak, too much memory."""

import ctypes
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dia_server.errors import UnusableAudio


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: float


class Slow:
    """Takes a minute to start."""

    def __init__(self) -> None:
        time.sleep(60)

    def pid(self) -> int:
        return os.getpid()


class Fragile:
    def __init__(self, folder: str = "", *, refuses: bool = False) -> None:
        if refuses:
            raise UnusableAudio("not today")
        self._folder = Path(folder)
        self._pid = os.getpid()
        self._leaked: list[bytearray] = []

    def pid(self) -> int:
        return self._pid

    def double(self, point: Point, data: bytes) -> tuple[float, bytes]:
        return point.x * point.y, data * 2

    def read(self, file: BinaryIO) -> bytes:
        return file.read()

    def refuse(self) -> None:
        raise UnusableAudio("no audio in it")

    def fail(self) -> None:
        raise ValueError("a bug")

    def crash(self) -> None:
        ctypes.string_at(0)

    def crash_once(self, name: str) -> int:
        """Crash on the first call with `name` only; later processes return their id."""
        mark = self._folder / name
        if not mark.exists():
            mark.touch()
            self.crash()
        return self._pid

    def hang(self) -> None:
        time.sleep(60)

    def allocate(self, size: int) -> int:
        return len(bytearray(size))

    def leak(self, size: int) -> int:
        self._leaked.append(bytearray(size))
        return self._pid

    def answer(self, size: int) -> bytes:
        return bytes(size)
