"""The composition root: the one place that knows every part."""

import asyncio
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from litestar import Litestar
from litestar.di import Provide
from litestar.types import ASGIApp

from dia_server import __version__, logs, settings
from dia_server.configuration import default_config, set_variables
from dia_server.crash_mark import CrashMark
from dia_server.db.engine import Database
from dia_server.db.lock import ServerLock
from dia_server.engine.devices import accelerators
from dia_server.engine.pool import AnyEngine
from dia_server.engines import choose_engine
from dia_server.errors import StorageUnavailable
from dia_server.services.config import Config, ConfigService
from dia_server.services.jobs.outputs import Outputs
from dia_server.services.jobs.recorder import Recorder
from dia_server.services.jobs.retention import Retention
from dia_server.services.jobs.service import JobService
from dia_server.services.jobs.store import JobStore
from dia_server.services.jobs.worker import JobWorker
from dia_server.services.server.announcement import Announcement
from dia_server.services.server.metrics import Metrics
from dia_server.services.server.resources import ResourceMonitor
from dia_server.services.server.shutdown import Shutdown
from dia_server.services.server.stats import StatsService
from dia_server.services.server.status import StatusService
from dia_server.services.speech.narrator import Narrator
from dia_server.services.speech.service import SpeechService
from dia_server.services.speech.word_check import WordCheck
from dia_server.services.voices.prompt_decoder import PromptDecoder
from dia_server.services.voices.prompt_folder import PromptFolder
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.service import VoiceService
from dia_server.services.voices.transcripts import TranscriptService
from dia_server.services.voices.voice_prompts import VoicePrompts
from dia_server.services.voices.whisper import Whisper
from dia_server.serving import NOTICE, is_listening
from dia_server.settings import Settings
from dia_server.web.controllers.audio_prompts import MAX_UPLOADS, MAX_UPLOADS_PER_ADDRESS, PromptController
from dia_server.web.controllers.docs import docs_router
from dia_server.web.controllers.jobs import JobController
from dia_server.web.controllers.monitoring import MonitoringController
from dia_server.web.controllers.openai import OpenAIController
from dia_server.web.controllers.server import ServerController
from dia_server.web.controllers.speech import SpeechController
from dia_server.web.controllers.voices import VoiceController
from dia_server.web.controllers.websocket import MAX_SOCKETS, MAX_SOCKETS_PER_ADDRESS, websocket_generate
from dia_server.web.controllers.whisper import WhisperController
from dia_server.web.errors import render_error
from dia_server.web.middleware.auth import ApiKeys
from dia_server.web.middleware.body_limits import BodyLimits
from dia_server.web.middleware.client_address import ClientAddress
from dia_server.web.middleware.client_name import ClientName
from dia_server.web.middleware.config_writes import ReadOnlyConfig
from dia_server.web.middleware.connection_close import CloseUnreadBody
from dia_server.web.middleware.cross_origin import CrossOrigin
from dia_server.web.middleware.head import HeadAsGet
from dia_server.web.middleware.hosts import Hosts
from dia_server.web.middleware.options import OptionsMiddleware
from dia_server.web.middleware.origins import Origins
from dia_server.web.middleware.rate_limit import RateLimit
from dia_server.web.middleware.request_context import RequestContext
from dia_server.web.middleware.request_metrics import RequestMetrics
from dia_server.web.requests.concurrency_limit import ConcurrencyLimit
from dia_server.web.requests.json_request import MAX_BODY, JSONRequest
from dia_server.web.requests.nul import NoNulInPath

log = structlog.get_logger()

CONTROLLERS = [
    SpeechController,
    JobController,
    VoiceController,
    PromptController,
    WhisperController,
    OpenAIController,
    ServerController,
    MonitoringController,
]


def create_app(
    conf: Settings | None = None, engine: AnyEngine | None = None, given: Collection[str] = ()
) -> Litestar:
    """Build the application.

    Tests hand over the settings, the names of those that are `given` as variables, and an `engine` in place
    of the one that the settings name.
    """
    if conf is None:
        conf, given = settings.load(), settings.given()
    logs.configure(conf.log_format, conf.log_level)
    gpus = accelerators()
    lock = ServerLock(conf.sqlalchemy_url, conf.audio_outputs)
    database = Database(conf.sqlalchemy_url)
    config = ConfigService(database.sessions, default_config(conf), set_variables(given))
    engine = engine or choose_engine(conf, gpus, lambda: config.current)
    usual_level = "info" if conf.log_level == "debug" else conf.log_level
    voices = VoiceService(database.sessions)
    decoder = PromptDecoder()
    prompt_folder = PromptFolder(conf.audio_prompts, decoder.make)
    prompts = PromptService(database.sessions, prompt_folder, voices)
    whisper = Whisper(conf.whisper_model, idle_s=conf.whisper_idle)
    transcripts = TranscriptService(
        prompts,
        prompt_folder,
        whisper,
        auto_transcribe=conf.auto_transcribe,
        wait_s=conf.transcribe_wait,
    )

    def apply(now: Config) -> None:
        logs.set_level("debug" if now.debug_mode else usual_level)
        transcripts.auto_transcribe = now.auto_transcribe
        whisper.model_size = now.whisper_model_size

    config.subscribe(apply)
    store = JobStore(database)
    outputs = Outputs(conf.audio_outputs)
    recorder = Recorder(store, outputs, config)
    words = WordCheck(whisper.transcribe, conf.guard_word_errors)
    narrator = Narrator(
        engine,
        retries=conf.guard_retries,
        exceeds_limit=words.exceeds_limit if conf.guard_word_errors else None,
    )
    speech = SpeechService(
        narrator,
        voices,
        VoicePrompts(prompts, prompt_folder),
        config,
        recorder.finished,
        max_characters=conf.max_characters,
    )
    crash_mark = CrashMark(conf.data_dir)
    worker = JobWorker(engine, speech, store, outputs)
    jobs = JobService(engine, speech, store, worker, outputs)
    retention = Retention(store, outputs, config)
    monitor = ResourceMonitor(gpus)
    stats = StatsService(database.reads, monitor)
    metrics = Metrics(__version__, engine, store, monitor)
    shutdown = Shutdown(conf.shutdown_timeout, engine, worker)
    announcement = Announcement(engine, conf.url, is_listening)
    status = StatusService(
        engine, database, shutdown, gpu_count=len(gpus), max_characters=conf.max_characters
    )

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stopping:  # what is started later is stopped earlier
            await asyncio.to_thread(lock.acquire)
            stopping.callback(lock.release)
            stopping.push_async_callback(database.close)
            await database.upgrade()
            await config.load()
            await voices.load()
            await prompts.load()
            stopping.push_async_callback(asyncio.to_thread, decoder.close)
            stopping.push_async_callback(transcripts.close)
            stopping.push_async_callback(whisper.close)
            if config.current.auto_discover_prompts:
                await discover(transcripts)
            await outputs.prepare(oldest=next((file for *_, file in await store.files_after(0, 1)), None))
            recorder.start()
            stopping.push_async_callback(recorder.stop)
            engine.start()
            stopping.push_async_callback(asyncio.to_thread, engine.stop)
            config.set_effective(
                worker_count=engine.worker_count,
                gpu_mode=config.current.gpu_mode if conf.device == "auto" else "single",
            )
            await worker.start(crash_mark.read())
            crash_mark.clear()
            stopping.push_async_callback(lambda: worker.stop(shutdown.left_s))
            stopping.push_async_callback(shutdown.close)
            retention.start()
            stopping.push_async_callback(retention.stop)
            listen_for_notice(shutdown)
            announcement.start()
            stopping.push_async_callback(announcement.stop)
            yield
        log.info("stopped")

    limits = {
        "generate": conf.rate_limit_generate,
        "upload": conf.rate_limit_upload,
        "jobs": conf.rate_limit_jobs,
        "plan": conf.rate_limit_jobs,
    }
    client_address = ClientAddress(conf.trusted_proxies)
    rate_limit = RateLimit(limits, client_address)
    middleware = [NoNulInPath(), OptionsMiddleware(), ApiKeys(conf.api_keys, client_address), rate_limit]
    if not conf.config_writable:
        middleware.append(ReadOnlyConfig())
    dependencies = {
        "client": Provide(ClientName(conf.api_keys, client_address), sync_to_thread=False),
        "speech_service": _provide(speech),
        "voice_service": _provide(voices),
        "prompt_folder": _provide(prompt_folder),
        "prompt_service": _provide(prompts),
        "transcript_service": _provide(transcripts),
        "whisper": _provide(whisper),
        "status_service": _provide(status),
        "job_service": _provide(jobs),
        "config_service": _provide(config),
        "rate_limit": _provide(rate_limit),
        "client_address": _provide(client_address),
        "socket_limit": _provide(
            ConcurrencyLimit("WebSockets", total=MAX_SOCKETS, each=MAX_SOCKETS_PER_ADDRESS)
        ),
        "upload_limit": _provide(
            ConcurrencyLimit("uploads", total=MAX_UPLOADS, each=MAX_UPLOADS_PER_ADDRESS)
        ),
        "stats_service": _provide(stats),
        "metrics_service": _provide(metrics),
    }
    app = Litestar(
        [*CONTROLLERS, websocket_generate, docs_router(CONTROLLERS, dependencies, conf.max_characters)],
        dependencies=dependencies,
        middleware=middleware,
        exception_handlers={Exception: render_error},
        request_class=JSONRequest,
        request_max_body_size=MAX_BODY,
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
    )
    answering = CloseUnreadBody(guard_origins(BodyLimits(HeadAsGet(app.asgi_handler), client_address), conf))
    app.asgi_handler = RequestContext(RequestMetrics(answering, metrics), engine.name)
    return app


def guard_origins(app: ASGIApp, conf: Settings) -> CrossOrigin:
    """Keep other sites from a server without keys; where there are keys, other sites do not have them."""
    hosts = Hosts(conf.allowed_hosts)
    if conf.api_keys:
        return CrossOrigin(app, None, Origins(conf.cors_origins or ("*",), hosts))
    return CrossOrigin(app, hosts, Origins(conf.cors_origins, hosts))


def listen_for_notice(shutdown: Shutdown) -> None:
    """Begin the shutdown when the server's main process says so; tests run on threads without signals."""
    if NOTICE is not None and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(NOTICE, shutdown.begin)


async def discover(transcripts: TranscriptService) -> None:
    """Look for new recordings; a folder that cannot be read must not keep the server from speaking."""
    try:
        await transcripts.discover(wait=False)
    except StorageUnavailable as error:
        log.error("audio prompts not discovered", cause=str(error))


def _provide(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False, use_cache=True)
