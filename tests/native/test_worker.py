import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from dia_server.errors import ServerError, UnusableAudio
from dia_server.native import Closed, NativeFailure, NativePool, NativeWorker
from dia_server.native.worker import MAX_ANSWER
from dia_server.units import MIB
from tests.memory import linux_only
from tests.native.fragile import Fragile, Point, Slow
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def worker() -> Iterator[NativeWorker[Fragile]]:
    worker = NativeWorker("fragile", Fragile, deadline_s=30, memory=64 * MIB)
    yield worker
    worker.close()


def test_a_method_is_called_in_another_process(worker: NativeWorker[Fragile]) -> None:
    assert worker.call(Fragile.pid) == worker.call(Fragile.pid) != os.getpid()
    assert worker.call(Fragile.double, Point(3, 1.5), b"ab") == (4.5, b"abab")


def test_an_open_file_is_read_from_its_beginning(worker: NativeWorker[Fragile]) -> None:
    file: BinaryIO
    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        file.flush()
        assert worker.call(Fragile.read, file) == b"content"
        assert worker.call(Fragile.read, file) == b"content"


def test_errors_of_the_api_come_back_as_they_are(worker: NativeWorker[Fragile]) -> None:
    with pytest.raises(UnusableAudio, match="no audio in it"):
        worker.call(Fragile.refuse)
    with pytest.raises(ServerError, match="ValueError: a bug"):
        worker.call(Fragile.fail)


def test_a_call_that_kills_two_children_is_refused_and_the_next_one_is_made(
    worker: NativeWorker[Fragile],
) -> None:
    first = worker.call(Fragile.pid)

    with pytest.raises(NativeFailure, match=r"crashed 2 times on it \(SIGSEGV\)"):
        worker.call(Fragile.crash)

    assert worker.call(Fragile.pid) != first


def test_a_crash_that_does_not_repeat_is_hidden_by_the_retry(tmp_path: Path) -> None:
    worker = NativeWorker("fragile", partial(Fragile, str(tmp_path)), deadline_s=30, memory=None)
    first = worker.call(Fragile.pid)

    assert worker.call(Fragile.crash_once, "mark") != first
    worker.close()


def test_a_call_ends_at_its_deadline() -> None:
    worker = NativeWorker("fragile", Fragile, deadline_s=0.1, memory=None)
    with pytest.raises(NativeFailure, match=r"longer than 0\.1 s"):
        worker.call(Fragile.hang)
    worker.close()


@linux_only
def test_memory_is_limited(worker: NativeWorker[Fragile]) -> None:
    assert worker.call(Fragile.allocate, 32 * MIB) == 32 * MIB
    with pytest.raises(NativeFailure, match="too much memory: the limit is 64 MiB"):
        worker.call(Fragile.allocate, 80 * MIB)


@linux_only
def test_a_leaking_child_is_replaced_before_a_call_fails() -> None:
    worker = NativeWorker("fragile", Fragile, deadline_s=30, memory=64 * MIB)
    pids = [worker.call(Fragile.leak, 2 * MIB) for _ in range(20)]
    worker.close()

    assert 4 <= len(set(pids)) <= 7  # each is replaced after leaking 1/8 of its limit


def test_an_answer_is_limited(worker: NativeWorker[Fragile]) -> None:
    unlimited = NativeWorker("fragile", Fragile, deadline_s=30, memory=None)
    with pytest.raises(NativeFailure, match="crashed"):
        unlimited.call(Fragile.answer, MAX_ANSWER + 1)
    assert len(unlimited.call(Fragile.answer, MAX_ANSWER // 2)) == MAX_ANSWER // 2
    unlimited.close()


def test_each_call_raises_the_error_of_a_failing_factory() -> None:
    worker = NativeWorker("fragile", partial(Fragile, refuses=True), deadline_s=30, memory=None)
    for _ in range(2):
        with pytest.raises(UnusableAudio, match="not today"):
            worker.wait()
    worker.close()


def test_closing_ends_a_call_and_refuses_the_next() -> None:
    worker = NativeWorker("fragile", Fragile, deadline_s=60, memory=None)
    worker.wait()
    ended: list[Exception] = []

    def hang() -> None:
        try:
            worker.call(Fragile.hang)
        except Closed as error:
            ended.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    time.sleep(0.1)
    worker.close()
    thread.join(30)

    assert ended
    with pytest.raises(Closed):
        worker.call(Fragile.pid)


def test_a_crash_delays_only_its_own_call() -> None:
    workers = [NativeWorker("fragile", Fragile, deadline_s=30, memory=None) for _ in range(2)]
    pool = NativePool(workers)
    pool.start()
    crash = pool.submit(Fragile.crash)
    pids = {pool.submit(Fragile.pid).result(30) for _ in range(3)}

    assert len(pids) == 1
    with pytest.raises(NativeFailure):
        crash.result(30)
    pool.close()


def test_closing_ends_a_call_whose_child_is_still_starting() -> None:
    worker = NativeWorker("slow", Slow, deadline_s=30, memory=None)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            worker.call(Slow.pid)
        except Exception as error:  # noqa: BLE001 - the assertion below names it
            errors.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    wait_until(lambda: bool(multiprocessing.active_children()))
    worker.close()
    caller.join(60)

    assert [type(error) for error in errors] == [Closed]
