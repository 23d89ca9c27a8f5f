"""Start and stop of the services, in order."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from dia_server.composition import Services
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
        await open_data(services, stack)
        await _start_voices(services, stack)
        await _open_outputs(services, stack)
        await _start_engine(services, stack)
        await _start_jobs(services, stack)
        listen_for_shutdown(services.shutdown)
        services.announcement.start()
        stack.push_async_callback(services.announcement.stop)
        yield
    log.info("stopped")


async def open_data(services: Services, stack: AsyncExitStack) -> None:
    """Lock the data against a second server, upgrade the database, load configuration and voices."""
    await asyncio.to_thread(services.lock.acquire)
    stack.callback(services.lock.release)
    stack.push_async_callback(services.database.close)
    await services.database.upgrade()
    await services.config.load()
    await services.anchors.load()
    await services.library.recover()
    await services.candidates.load()
    await services.voices.load()
    await services.prompts.load()


async def _start_voices(services: Services, stack: AsyncExitStack) -> None:
    stack.push_async_callback(services.references.close)
    stack.push_async_callback(asyncio.to_thread, services.prompt_decoder.close)
    stack.push_async_callback(services.transcripts.close)
    stack.push_async_callback(services.whisper.close)
    if services.config.current.auto_discover_prompts:
        await discover(services.transcripts)


async def _open_outputs(services: Services, stack: AsyncExitStack) -> None:
    oldest = next((file for *_, file in await services.job_store.files_after(0, 1)), None)
    await services.outputs.prepare(oldest=oldest)
    services.recorder.start()
    stack.push_async_callback(services.recorder.stop)


async def _start_engine(services: Services, stack: AsyncExitStack) -> None:
    services.engine.start()
    stack.push_async_callback(asyncio.to_thread, services.engine.stop)
    services.anchor_maker.start([services.voices.all[voice_id] for voice_id in BUILT_IN])
    stack.push_async_callback(services.anchor_maker.stop)
    await services.candidate_maker.start()
    stack.push_async_callback(services.candidate_maker.stop)
    services.config.set_effective(
        worker_count=services.engine.worker_count,
        gpu_mode=services.config.current.gpu_mode if services.conf.device == "auto" else "single",
    )


async def _start_jobs(services: Services, stack: AsyncExitStack) -> None:
    await services.job_worker.start(services.crash_mark.read())
    services.crash_mark.clear()
    stack.push_async_callback(lambda: services.job_worker.stop(services.shutdown.remaining_s))
    stack.push_async_callback(services.shutdown.close)
    services.retention.start()
    stack.push_async_callback(services.retention.stop)


async def discover(transcripts: TranscriptService) -> None:
    """Register new files in `audio_prompts/` as audio prompts; log an error if the disk or database fails."""
    try:
        await transcripts.discover(wait=False)
    except StorageUnavailable as error:
        log.error("audio prompts not discovered", cause=str(error))


def listen_for_shutdown(shutdown: Shutdown) -> None:
    """Make SHUTDOWN_SIGNAL begin the shutdown; do nothing on Windows or outside the main thread (tests)."""
    if SHUTDOWN_SIGNAL is not None and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(SHUTDOWN_SIGNAL, shutdown.begin)
