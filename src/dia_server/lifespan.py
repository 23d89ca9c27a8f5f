"""Start and stop of the services, in order."""

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from dia_server.composition import Services
from dia_server.engine.workers import SWITCH_S
from dia_server.errors import StorageUnavailable
from dia_server.services.server import Shutdown
from dia_server.services.voices.service import BUILT_IN
from dia_server.services.voices.transcripts import TranscriptService
from dia_server.serving import SHUTDOWN_SIGNAL

log = structlog.get_logger()


@asynccontextmanager
async def run_services(services: Services) -> AsyncIterator[None]:
    """Start the services. On exit, or if a start fails, stop those that were started, in reverse order."""
    async with AsyncExitStack() as stack:
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(SWITCH_S)
        await open_data(services, stack)
        await _join_peers(services, stack)
        await _recover_jobs(services)
        led = services.leadership.leads
        await _start_voices(services, stack, leads=led)
        services.recorder.start()
        stack.push_async_callback(services.recorder.stop)
        await _start_engine(services, stack, leads=led)
        _start_jobs(services, stack)
        _lead_later(services, stack, led=led)
        listen_for_shutdown(services.shutdown)
        services.announcement.start()
        stack.push_async_callback(services.announcement.stop)
        yield
    log.info("stopped")


async def open_data(services: Services, stack: AsyncExitStack) -> None:
    """Lock the data, upgrade the database, load what is kept in memory, remove what a crash left."""
    await asyncio.to_thread(services.lock.acquire)
    stack.callback(services.lock.release)
    stack.push_async_callback(services.database.close)
    await services.database.upgrade()
    await services.config.load()
    oldest = next((file for *_, file in await services.job_store.files_after(0, 1)), None)
    await services.outputs.prepare(oldest=oldest)
    await services.library.recover()
    await services.anchors.load()
    await services.voices.load()
    await services.pronunciations.load()
    await services.prompts.load()
    try:
        for part in (services.anchors, services.candidates, services.prompts):
            await part.clean()
    except StorageUnavailable as error:  # retention tries again
        log.warning("files not cleaned", cause=str(error))


async def _join_peers(services: Services, stack: AsyncExitStack) -> None:
    await services.membership.join()
    stack.push_async_callback(services.membership.leave)
    if services.database.shared:
        services.heartbeat.start()
        stack.push_async_callback(services.heartbeat.stop)
        services.reloading.start()
        stack.push_async_callback(services.reloading.stop)
        await services.listener.start()
        stack.push_async_callback(services.listener.stop)


async def _recover_jobs(services: Services) -> None:
    """Requeue or complete the jobs of servers that have ended, and count crashes."""
    crashes = services.crash_marks.read()
    await services.job_worker.recover({crash.server_id: crash.cause for crash in crashes})
    services.crash_marks.clear()


async def _start_voices(services: Services, stack: AsyncExitStack, *, leads: bool) -> None:
    stack.push_async_callback(services.references.close)
    stack.push_async_callback(asyncio.to_thread, services.prompt_decoder.close)
    stack.push_async_callback(services.transcripts.close)
    stack.push_async_callback(services.whisper.close)
    if leads and services.config.current.auto_discover_prompts:
        await discover(services.transcripts)


async def _start_engine(services: Services, stack: AsyncExitStack, *, leads: bool) -> None:
    services.engine.start()
    stack.push_async_callback(asyncio.to_thread, services.engine.stop)
    if leads:
        _start_anchors(services)
    stack.push_async_callback(services.anchor_maker.stop)
    await services.candidate_maker.start()
    stack.push_async_callback(services.candidate_maker.stop)
    services.config.set_effective(
        worker_count=services.engine.worker_count,
        gpu_mode=services.config.current.gpu_mode if services.conf.device == "auto" else "single",
    )


def _start_jobs(services: Services, stack: AsyncExitStack) -> None:
    services.job_worker.start()
    stack.push_async_callback(lambda: services.job_worker.stop(services.shutdown.remaining_s))
    stack.push_async_callback(services.shutdown.close)
    services.retention.start()
    stack.push_async_callback(services.retention.stop)


def _start_anchors(services: Services) -> None:
    services.anchor_maker.start([services.voices.all[voice_id] for voice_id in BUILT_IN])


def _lead_later(services: Services, stack: AsyncExitStack, *, led: bool) -> None:
    """Do a leader's work when this server becomes the leader; `led` says that it did so as it started."""
    discovering: set[asyncio.Task[None]] = set()

    def lead() -> None:
        if services.shutdown.begun:
            return
        services.retention.wake()
        _start_anchors(services)
        if services.config.current.auto_discover_prompts:
            discovering.add(asyncio.create_task(discover(services.transcripts)))

    async def stop() -> None:
        services.leadership.unsubscribe(lead)
        await asyncio.gather(*discovering, return_exceptions=True)

    services.leadership.subscribe(lead)
    stack.push_async_callback(stop)
    if services.leadership.leads and not led:
        lead()


async def discover(transcripts: TranscriptService) -> None:
    """Register new files in `audio_prompts/` as audio prompts; log an error if the disk or database fails."""
    try:
        await transcripts.discover(wait=False)
    except StorageUnavailable as error:
        log.error("audio prompts not discovered", cause=str(error))


def listen_for_shutdown(shutdown: Shutdown) -> None:
    """Make SHUTDOWN_SIGNAL begin the shutdown; do nothing on Windows or outside the main thread (tests)."""
    if SHUTDOWN_SIGNAL is not None and threading.current_thread() is threading.main_thread():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(SHUTDOWN_SIGNAL, shutdown.begin)
        # Ctrl-C reaches this process too, but the main one stops it: a second call blocks Granian's handler
        loop.add_signal_handler(signal.SIGINT, lambda: None)
