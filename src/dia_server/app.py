"""The composition root: the one place that knows every part."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.di import Provide

from dia_server import logs, settings
from dia_server.db.engine import Database
from dia_server.engine import preview
from dia_server.engine.devices import Device, accelerators
from dia_server.engine.dia import load_dia
from dia_server.engine.engine import Engine
from dia_server.engine.pool import AnyEngine, EnginePool
from dia_server.engine.workers import in_worker
from dia_server.errors import StorageError
from dia_server.services.prompt_folder import PromptFolder
from dia_server.services.prompts import PromptService
from dia_server.services.speech import SpeechService
from dia_server.services.status import StatusService
from dia_server.services.transcripts import TranscriptService
from dia_server.services.voice_prompts import VoicePrompts
from dia_server.services.voices import VoiceService
from dia_server.services.whisper import Whisper
from dia_server.settings import Settings
from dia_server.web.auth import ApiKeys
from dia_server.web.client_address import ClientAddress
from dia_server.web.docs import docs_router
from dia_server.web.errors import render_error
from dia_server.web.json_request import JSONRequest
from dia_server.web.openai import OpenAIController
from dia_server.web.prompts import PromptController
from dia_server.web.rate_limit import RateLimit
from dia_server.web.request_context import RequestContext
from dia_server.web.server import ServerController
from dia_server.web.speech import SpeechController
from dia_server.web.voices import VoiceController
from dia_server.web.whisper import WhisperController

log = structlog.get_logger()

CONTROLLERS = [
    SpeechController,
    VoiceController,
    PromptController,
    WhisperController,
    OpenAIController,
    ServerController,
]

MAX_BODY = 1024 * 1024
"""Bytes of a JSON body; the longest text, escaped to the utmost, takes 48 KiB."""

PREVIEW_SLOTS = 16
"""More would only make each other's sentences wait: the preview is one thread of espeak-ng."""

EXPOSED_HEADERS = [
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "Retry-After",
    "X-Request-ID",
    "X-Engine",
    "X-Seed",
]


def create_app(conf: Settings | None = None, engine: AnyEngine | None = None) -> Litestar:
    """Build the application; `engine` in place of the one that the settings name is for tests."""
    conf = conf or settings.load()
    logs.configure(conf.log_format, conf.log_level)
    gpus = accelerators()
    engine = engine or build_engine(conf, gpus)
    database = Database(conf.sqlalchemy_url)
    voices = VoiceService(database.sessions)
    prompt_folder = PromptFolder(conf.audio_prompts)
    prompts = PromptService(database.sessions, prompt_folder, voices)
    whisper = Whisper(conf.whisper_model, idle_s=conf.whisper_idle)
    transcripts = TranscriptService(
        prompts,
        prompt_folder,
        whisper,
        auto_transcribe=conf.auto_transcribe,
        wait_s=conf.transcribe_wait,
    )
    speech = SpeechService(
        engine, voices, VoicePrompts(prompts, prompt_folder), show_prompts=conf.show_prompts
    )
    status = StatusService(engine, gpu_count=len(gpus))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        revision = await database.upgrade()
        await voices.load()
        await prompts.load()
        try:
            await transcripts.discover(wait=False)
        except StorageError as error:
            log.error("audio prompts not discovered", cause=str(error))
        engine.start()
        log.info("started", engine=engine.name, database_revision=revision)
        try:
            yield
        finally:
            await asyncio.to_thread(engine.stop)
            await whisper.close()
            await transcripts.close()
            await database.close()

    limits = {
        "generate": conf.rate_limit_generate,
        "upload": conf.rate_limit_upload,
        "jobs": conf.rate_limit_jobs,
    }
    dependencies = {
        "speech_service": _provide(speech),
        "voice_service": _provide(voices),
        "prompt_folder": _provide(prompt_folder),
        "prompt_service": _provide(prompts),
        "transcript_service": _provide(transcripts),
        "whisper": _provide(whisper),
        "status_service": _provide(status),
    }
    app = Litestar(
        [*CONTROLLERS, docs_router(CONTROLLERS, dependencies)],
        dependencies=dependencies,
        middleware=[ApiKeys(conf.api_keys), RateLimit(limits, ClientAddress(conf.trusted_proxies))],
        exception_handlers={Exception: render_error},
        cors_config=CORSConfig(allow_origins=list(conf.cors_origins), expose_headers=EXPOSED_HEADERS),
        request_class=JSONRequest,
        request_max_body_size=MAX_BODY,
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
    )
    app.asgi_handler = RequestContext(app.asgi_handler, engine.name)
    return app


def build_engine(conf: Settings, gpus: Sequence[Device]) -> AnyEngine:
    """Choose what speaks; several GPUs get a process each."""
    name = conf.engine
    if name == "auto":
        name = "dia" if gpus else "preview"
        if name == "preview":
            log.warning(
                "no GPU found: the preview engine (espeak-ng) speaks, not Dia; DIA_ENGINE=dia insists"
            )
    if name == "preview":
        slots = min(conf.max_batch, PREVIEW_SLOTS)
        return Engine("preview", preview.load(slots), max_waiting=conf.max_waiting)
    load = partial(
        load_dia,
        model=conf.model,
        codec=conf.codec,
        dtype=conf.dtype,
        max_batch=conf.max_batch,
        compile=conf.torch_compile,
    )
    idle = conf.idle_unload or None
    if conf.device != "auto" or len(gpus) < 2:
        one = partial(load, device=conf.device)
        return Engine("dia", one, max_waiting=conf.max_waiting, idle_unload_s=idle)
    waiting = -(-conf.max_waiting // len(gpus))
    loaders = [in_worker(partial(load, device=gpu.torch_name)) for gpu in gpus]
    return EnginePool([Engine("dia", loader, max_waiting=waiting, idle_unload_s=idle) for loader in loaders])


def _provide(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False, use_cache=True)
