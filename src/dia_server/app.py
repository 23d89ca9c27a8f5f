"""Builds the Litestar application and the ASGI middleware around it."""

import gc
from collections.abc import Collection
from typing import Any

from litestar import Litestar
from litestar.di import Provide

from dia_server import logs, settings
from dia_server.composition import Services
from dia_server.engine.any_engine import AnyEngine
from dia_server.lifespan import run_services
from dia_server.services.server import RequestCounts
from dia_server.settings import Settings
from dia_server.timing import Timing
from dia_server.web.controllers.audio_prompts import MAX_UPLOADS, MAX_UPLOADS_PER_ADDRESS, PromptController
from dia_server.web.controllers.design import DesignController
from dia_server.web.controllers.dialogue import DialogueController
from dia_server.web.controllers.docs import docs_router
from dia_server.web.controllers.jobs import JobController
from dia_server.web.controllers.library import LibraryController
from dia_server.web.controllers.monitoring import MonitoringController
from dia_server.web.controllers.openai import OpenAIController
from dia_server.web.controllers.pronunciations import PronunciationController
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
from dia_server.web.middleware.foreign_pages import ForeignPages
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
from dia_server.web.route_options import LimitName

CONTROLLERS = [
    SpeechController,
    DialogueController,
    JobController,
    VoiceController,
    LibraryController,
    PronunciationController,
    DesignController,
    PromptController,
    WhisperController,
    OpenAIController,
    ServerController,
    MonitoringController,
]


def create_app(
    conf: Settings | None = None,
    engine: AnyEngine | None = None,
    given: Collection[str] = (),
    timing: Timing = Timing(),  # noqa: B008 - frozen
) -> Litestar:
    """Build the application.

    `given` holds the names of the settings that the environment or `.env` sets. If `conf` is None, both are
    read from there. Tests pass `engine`, to replace the one that the settings choose, and `timing` with
    shorter waits.
    """
    if conf is None:
        conf, given = settings.load(), settings.given()
    logs.configure(conf.log_format, conf.log_level)
    services = Services(conf, given, engine, timing)
    client_address = ClientAddress(conf.trusted_proxies)
    rate_limit = build_rate_limit(conf, client_address, services.request_counts)
    dependencies = build_dependencies(services, client_address, rate_limit)
    hosts = Hosts(conf.allowed_hosts)
    origins = build_origins(conf, hosts)
    middleware = [
        NoNulInPath(),
        OptionsMiddleware(),
        ForeignPages(origins),
        ApiKeys(conf.api_keys, client_address),
        rate_limit,
    ]
    if not conf.config_writable:
        middleware.append(ReadOnlyConfig())
    app = Litestar(
        [*CONTROLLERS, websocket_generate, docs_router(CONTROLLERS, dependencies, conf.max_characters)],
        dependencies=dependencies,
        middleware=middleware,
        exception_handlers={Exception: render_error},
        request_class=JSONRequest,
        request_max_body_size=MAX_BODY,
        lifespan=[lambda _: run_services(services)],
        openapi_config=None,
        logging_config=None,
    )
    bounded = BodyLimits(HeadAsGet(app.asgi_handler), client_address)
    closing = CloseUnreadBody(CrossOrigin(bounded, None if conf.api_keys else hosts, origins))
    measured = RequestMetrics(closing, services.metrics)
    app.asgi_handler = RequestContext(measured, services.engine.name)
    return app


def create_lasting_app() -> Litestar:
    """Build the application of a server process, whose garbage collector may still be disabled.

    Modules and routes last as long as the process, so the collector is told to leave them out: a full
    collection would otherwise stop the process for a tenth of a second.
    """
    app = create_app()
    gc.freeze()
    gc.enable()
    return app


def build_rate_limit(conf: Settings, client_address: ClientAddress, counts: RequestCounts) -> RateLimit:
    limits: dict[LimitName, int] = {
        "generate": conf.rate_limit_generate,
        "upload": conf.rate_limit_upload,
        "jobs": conf.rate_limit_jobs,
        "plan": conf.rate_limit_jobs,
    }
    return RateLimit(limits, client_address, counts)


def build_dependencies(
    services: Services, client_address: ClientAddress, rate_limit: RateLimit
) -> dict[str, Provide]:
    """Return the dependencies of route handlers, by the name of the parameter that receives them."""
    return {
        "client": Provide(ClientName(services.conf.api_keys, client_address), sync_to_thread=False),
        "speech_service": _provide(services.speech),
        "voice_service": _provide(services.voices),
        "custom_voices": _provide(services.custom_voices),
        "voice_previews": _provide(services.voice_previews),
        "anchor_store": _provide(services.anchors),
        "anchor_maker": _provide(services.anchor_maker),
        "voice_library": _provide(services.library),
        "pronunciation_store": _provide(services.pronunciations),
        "candidate_maker": _provide(services.candidate_maker),
        "spool": _provide(services.files.recordings),
        "prompt_service": _provide(services.prompts),
        "transcript_service": _provide(services.transcripts),
        "references": _provide(services.references),
        "whisper": _provide(services.whisper),
        "status_service": _provide(services.status),
        "job_service": _provide(services.jobs),
        "config_service": _provide(services.config),
        "rate_limit": _provide(rate_limit),
        "client_address": _provide(client_address),
        "socket_limit": _provide(
            ConcurrencyLimit("WebSockets", total=MAX_SOCKETS, each=MAX_SOCKETS_PER_ADDRESS)
        ),
        "upload_limit": _provide(
            ConcurrencyLimit("uploads", total=MAX_UPLOADS, each=MAX_UPLOADS_PER_ADDRESS)
        ),
        "stats_service": _provide(services.stats),
        "metrics_service": _provide(services.metrics),
    }


def build_origins(conf: Settings, hosts: Hosts) -> Origins:
    """Return the origins whose pages may use the server.

    With API keys, and unless DIA_CORS_ORIGINS is set, all are allowed, because foreign pages hold no key.
    """
    return Origins(conf.cors_origins or (("*",) if conf.api_keys else ()), hosts)


def _provide(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False, use_cache=True)
