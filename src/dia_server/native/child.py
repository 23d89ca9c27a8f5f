"""Child process of a `NativeWorker`: creates the object and answers calls of its methods.

Imports little, so that the child starts quickly.
"""

import math
import mmap
import os
import signal
import sys
import typing
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

ALARM_AFTER_S = 5
"""Seconds after a call's deadline until SIGALRM ends the child, if the parent has not killed it."""
OUT_OF_MEMORY = "out of memory"
"""First item of the answer to a call that ran out of memory."""
LEAK_SHARE = 8
"""Divisor: the child is replaced if its calls have leaked more than 1/8 of its memory limit."""
FINAL_RESULT = "final result"
"""First item of an answer with a result, if the parent must then replace the child (see LEAK_SHARE)."""


def serve(
    connection: Connection, factory: Callable[[], object], memory: int | None, deadline_s: float
) -> None:
    """Entry point of the child: create the object, then answer calls until the parent closes the pipe.

    Calls may enlarge the address space by `memory` bytes; None means no limit. The parent kills the child if
    a call exceeds `deadline_s`. In case the parent is gone, an alarm ends the child ALARM_AFTER_S seconds
    after this deadline.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
    _discard_output()
    try:
        served = factory()
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        connection.send_bytes(msgspec.msgpack.encode(_failure(error)))
        return
    most = math.inf
    if memory is not None:
        limit_memory(memory)
        most = _address_space() + memory / LEAK_SHARE
    connection.send_bytes(msgspec.msgpack.encode(("returned", None)))
    with suppress(EOFError, OSError):  # the parent has closed the pipe or exited
        while True:
            kind, value = _answer_to(served, connection, deadline_s)
            if kind == "returned" and _address_space() > most:
                kind = FINAL_RESULT
            connection.send_bytes(msgspec.msgpack.encode((kind, value)))


def _answer_to(served: object, connection: Connection, deadline_s: float) -> tuple[str, Any]:
    name, values = msgspec.msgpack.decode(connection.recv_bytes(), type=tuple[str, list[Any]])
    method = getattr(type(served), name)
    kinds, _ = signature(method)
    args = [
        receive_file(connection) if kind is BinaryIO else msgspec.convert(value, kind)
        for kind, value in zip(kinds, values, strict=True)
    ]
    set_alarm = getattr(signal, "alarm", lambda _: None)  # Windows has no alarm
    set_alarm(math.ceil(deadline_s) + ALARM_AFTER_S)
    try:
        return "returned", method(served, *args)
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        return _failure(error)
    finally:
        set_alarm(0)
        for arg in args:
            if is_file(arg):
                arg.close()


def _failure(error: Exception) -> tuple[str, str]:
    return (OUT_OF_MEMORY, "") if isinstance(error, MemoryError) else (type(error).__name__, str(error))


def _discard_output() -> None:
    """Redirect stdout and stderr to the null device: libraries print warnings and progress bars."""
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)


def limit_memory(growth: int) -> None:
    """On Linux, limit the address space to its present size plus `growth` bytes; elsewhere do nothing."""
    if sys.platform == "linux":
        import resource

        limit = _address_space() + growth
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _address_space() -> int:
    """Return the virtual memory that this process uses, in bytes; 0 on systems other than Linux."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def is_file(arg: object) -> bool:
    return hasattr(arg, "fileno")


def send_file(connection: Connection, handle: int, pid: int | None) -> None:
    if sys.platform == "win32":
        import msvcrt

        handle = msvcrt.get_osfhandle(handle)
    reduction.send_handle(connection, handle, pid)


def receive_file(connection: Connection) -> BinaryIO:
    handle = reduction.recv_handle(connection)
    if sys.platform == "win32":
        import msvcrt

        handle = msvcrt.open_osfhandle(handle, os.O_RDONLY)
    return os.fdopen(handle, "rb")


@cache
def signature(method: Callable[..., Any]) -> tuple[list[Any], Any]:
    """Return the annotated types of a method's arguments (without `self`), and the type of its result."""
    hints = typing.get_type_hints(method)
    result = hints.pop("return")
    return list(hints.values()), result
