"""Worker processes: what they make of messages, how they die, and that they wait for nothing."""

import asyncio
import fcntl
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from dia_server.engine.batch import Progress
from dia_server.engine.engine import Engine
from dia_server.engine.types import Chunk, Utterance
from dia_server.engine.workers import LENGTH, WorkerBatch, WorkerDied, read_messages
from dia_server.errors import ServerError, TextTooLong
from tests.engine.stopped_parent import CHUNKS, SAMPLES, UTTERANCES
from tests.engine.talker import load_nothing, load_talker

ENDLESS = "word " * 200_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Talk:
    """A batch of two slots in a worker, and what came of it."""

    def __init__(self) -> None:
        self.reports: list[float] = []
        self.progress: list[Progress] = []
        self.batch = WorkerBatch(load_talker, self.reports.append, self.progress.append)

    @property
    def events(self) -> dict[int, list[Chunk | Exception]]:
        events = defaultdict(list)
        for progress in self.progress:
            for ticket, event in progress.events:
                events[ticket].append(event)
        return events

    def say(self, ticket: int, text: str) -> None:
        self.batch.admit(ticket, say(text))

    def first(self, ticket: int) -> Chunk | Exception:
        """Advance until there is an event of `ticket`; return it."""
        while not self.events[ticket]:
            self.batch.advance()
        return self.events[ticket][0]


@pytest.fixture
def talk() -> Iterator[Talk]:
    talk = Talk()
    yield talk
    talk.batch.close()


def say(text: str) -> Utterance:
    return Utterance(text, voice="a", seed=0)


def worker() -> psutil.Process:
    (process,) = [child for child in multiprocessing.active_children() if child.name == "dia-worker"]
    return psutil.Process(process.pid)


async def start(engine: Engine) -> None:
    engine.start()
    while not engine.ready:
        await asyncio.sleep(0.01)


def test_a_worker_does_what_its_model_does(talk: Talk) -> None:
    talk.say(7, "one two")
    talk.first(7)
    talk.say(8, "one")
    talk.first(8)
    while len(talk.events[7]) < 2:
        talk.batch.advance()

    assert talk.batch.slots == 2
    assert talk.batch.notes == ("talks only",)
    assert talk.reports == [0.5]
    done = {
        ticket: [e.done for e in events if isinstance(e, Chunk)] for ticket, events in talk.events.items()
    }
    assert done == {7: [False, True], 8: [True]}
    assert sum(progress.slot_steps for progress in talk.progress) == 3


def test_log_records_of_a_worker_reach_the_parent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        Talk().batch.close()
    with caplog.at_level("WARNING"):
        Talk().batch.close()

    assert [(record.message, vars(record)["slots"]) for record in caplog.records] == [("slots", 2)]


def test_named_errors_keep_their_name_and_others_their_text(talk: Talk) -> None:
    talk.say(0, "too long")
    refused = talk.first(0)
    talk.say(1, "fail")
    failed = talk.first(1)
    talk.say(2, "crash")

    assert isinstance(refused, TextTooLong)
    assert (str(refused), refused.param) == ("1025 bytes", "text")
    assert isinstance(failed, TextTooLong)
    assert str(talk.first(2)) == "Generation failed: the step failed"


def test_a_failed_step_fails_what_runs_and_the_worker_goes_on(talk: Talk) -> None:
    talk.say(0, ENDLESS)
    talk.first(0)
    before = worker().pid
    talk.say(1, "crash")
    failure = talk.first(1)
    talk.say(2, "one")

    assert [str(event) for event in (talk.events[0][-1], failure)] == [
        "Generation failed: the step failed"
    ] * 2
    assert isinstance(talk.first(2), Chunk)
    assert worker().pid == before


def test_a_cancellation_frees_the_slot(talk: Talk) -> None:
    for ticket in range(6):
        talk.say(ticket, ENDLESS)
        assert isinstance(talk.first(ticket), Chunk)
        talk.batch.cancel(ticket)


def test_waking_ends_the_wait_for_events(talk: Talk) -> None:
    talk.batch.wake()
    talk.batch.advance()

    assert not talk.progress


def test_closing_ends_a_worker_that_is_generating(talk: Talk) -> None:
    talk.say(0, ENDLESS)
    talk.first(0)
    (process,) = [child for child in multiprocessing.active_children() if child.name == "dia-worker"]

    talk.batch.close()

    assert process.exitcode == 0


def test_a_worker_that_died_is_started_again(talk: Talk) -> None:
    talk.say(0, "die")
    death = talk.first(0)
    talk.say(1, "one")

    assert isinstance(death, WorkerDied)
    assert "exit code 7" in str(death)
    assert isinstance(talk.first(1), Chunk)
    assert talk.reports == [0.5, 0.0, 0.5, 1.0]


def test_a_worker_that_died_while_idle_is_started_for_the_next_utterance(talk: Talk) -> None:
    (process,) = [child for child in multiprocessing.active_children() if child.name == "dia-worker"]
    process.kill()
    process.join()

    talk.say(0, "one")

    assert isinstance(talk.first(0), Chunk)


def test_a_process_that_could_not_be_started_is_started_for_the_next_utterance(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: SpawnProcess) -> None:
        raise BlockingIOError("too many processes")

    (process,) = [child for child in multiprocessing.active_children() if child.name == "dia-worker"]
    process.kill()
    process.join()

    with monkeypatch.context() as patched:
        patched.setattr(SpawnProcess, "start", refuse)
        talk.say(0, "one")
    talk.say(1, "one")

    assert "too many processes" in str(talk.first(0))
    assert isinstance(talk.first(1), Chunk)


def test_an_utterance_that_kills_its_worker_at_once_fails(talk: Talk) -> None:
    talk.say(0, "die at once")

    assert "exit code 3" in str(talk.first(0))


def test_an_error_of_loading_is_raised_in_the_parent() -> None:
    with pytest.raises(RuntimeError, match="OSError: no weights"):
        WorkerBatch(load_nothing, lambda share: None, lambda progress: None)


def test_a_worker_finishes_what_it_holds_while_its_parent_is_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.engine.stopped_parent", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "running\n"
        parent.send_signal(signal.SIGSTOP)
        os.waitpid(parent.pid, os.WUNTRACED)
        try:
            (tmp_path / "go").touch()
            deadline = time.monotonic() + 60
            while not (tmp_path / "finished").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert psutil.Process(parent.pid).status() == psutil.STATUS_STOPPED
        finally:
            parent.send_signal(signal.SIGCONT)
        assert parent.stdout.read().split() == [str(CHUNKS * SAMPLES)] * UTTERANCES
    assert parent.returncode == 0


def test_a_signal_in_the_middle_of_a_message_does_not_end_it() -> None:
    worker_end, events = socket.socketpair()
    messages = [("loaded", 0.5)] * 100
    content = pickle.dumps(messages)
    read: list[object] = []
    reader = threading.Thread(target=lambda: read.append(read_messages(events)))
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        reader.start()
        worker_end.sendall(LENGTH.pack(len(content)) + content[:50])
        while int.from_bytes(fcntl.ioctl(events, termios.FIONREAD, bytes(4)), sys.byteorder):
            time.sleep(0.001)
        assert reader.ident is not None
        signal.pthread_kill(reader.ident, signal.SIGUSR1)
        worker_end.sendall(content[50:])
    finally:
        worker_end.close()
        reader.join()
        signal.signal(signal.SIGUSR1, before)

    assert read == [messages]
    events.close()


async def test_an_engine_counts_the_work_of_its_worker() -> None:
    engine = Engine("dia", load_talker, max_waiting=8, own_process=True)
    await start(engine)
    generations = [engine.submit(say("word " * count)) for count in (5, 30, 20)]
    for generation in generations:
        async for _ in generation:
            pass

    assert engine.work.tokens == engine.work.samples == engine.work.slot_steps == 55
    assert 28 <= engine.work.steps <= 55
    assert engine.active == 0
    await asyncio.to_thread(engine.stop)


@pytest.mark.parametrize("own_process", [False, True])
async def test_an_engine_tells_what_a_reset_has_degraded(own_process: bool) -> None:
    engine = Engine("dia", load_talker, max_waiting=8, own_process=own_process)
    await start(engine)
    with pytest.raises(ServerError, match="the step failed"):
        await anext(engine.submit(say("crash")))
    assert len([chunk async for chunk in engine.submit(say("one two"))]) == 2

    assert engine.notes == ("talks only", "was reset")
    await asyncio.to_thread(engine.stop)


async def test_leaving_early_frees_the_slots_of_a_worker() -> None:
    engine = Engine("dia", load_talker, max_waiting=8, own_process=True)
    await start(engine)
    for _ in range(6):
        async with engine.submit(say(ENDLESS)) as generation:
            await anext(generation)

    assert len([chunk async for chunk in engine.submit(say("one two"))]) == 2
    await asyncio.to_thread(engine.stop)


async def test_the_utterances_of_a_killed_worker_fail() -> None:
    engine = Engine("dia", load_talker, max_waiting=8, own_process=True)
    await start(engine)
    generations = [engine.submit(say(ENDLESS)) for _ in range(2)]
    for generation in generations:
        await anext(generation)
    worker().kill()

    for generation in generations:
        with pytest.raises(WorkerDied, match="exit code -9"):
            async for _ in generation:
                pass
    assert len([chunk async for chunk in engine.submit(say("one two"))]) == 2
    await asyncio.to_thread(engine.stop)


async def test_an_engine_outlives_its_worker() -> None:
    engine = Engine("dia", load_talker, max_waiting=8, own_process=True)
    await start(engine)

    bystander = engine.submit(say(ENDLESS))
    doomed = engine.submit(say("one die"))
    for generation in (doomed, bystander):
        with pytest.raises(ServerError, match="exit code 7"):
            async for _ in generation:
                pass

    assert len([chunk async for chunk in engine.submit(say("one two"))]) == 2
    await asyncio.to_thread(engine.stop)


async def test_an_engine_outlives_a_fault_of_its_gpu() -> None:
    """After a CUDA fault every call fails, including `release`."""
    engine = Engine("dia", load_talker, max_waiting=8, own_process=True)
    await start(engine)

    for generation in [engine.submit(say(ENDLESS)), engine.submit(say("one two break"))]:
        with pytest.raises(ServerError, match="the GPU has a fault"):
            async for _ in generation:
                pass

    assert len([chunk async for chunk in engine.submit(say("one two"))]) == 2
    await asyncio.to_thread(engine.stop)
