"""Corrects and completes the OpenAPI description that Litestar generates.

Litestar omits the limits of optional fields and documents its own error body. So this module replaces all
schemas by those of msgspec, which also decodes the requests. It builds the responses with errors, audio, jobs
and events from the route options.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler

from dia_server import __version__
from dia_server.services.speech.request import MEDIA_TYPES
from dia_server.web import schemas, websocket_messages
from dia_server.web.route_options import options_of

Json = dict[str, Any]

JSON_ANSWERS = {"accepted": "JobAccepted", "timed": "SpeechWithTimestamps"}
"""Schema of the JSON that a route with audio may answer with, by its option."""

CONFIG = OpenAPIConfig(
    title="dia-server",
    version=__version__,
    description=f"Text-to-speech with the Dia dialogue model.\n{websocket_messages.DESCRIPTION}",
)


def document(
    handlers: Sequence[ControllerRouterHandler], dependencies: Mapping[str, Provide], max_characters: int
) -> bytes:
    """Return the OpenAPI description of `handlers` as JSON; `max_characters` is the maximum length of a text.

    A second application, which is never served, generates it: with an OpenAPI description, Litestar also adds
    documentation pages that load scripts from other hosts.
    """
    app = Litestar(handlers, dependencies=dependencies, openapi_config=CONFIG, logging_config=None)
    description: Json = msgspec.json.decode(msgspec.json.encode(app.openapi_schema.to_schema()))
    structs = [
        item
        for item in vars(schemas).values()
        if isinstance(item, type) and issubclass(item, msgspec.Struct) and item is not msgspec.Struct
    ]
    _, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    for request, field in (("GenerateRequest", "text"), ("SpeechRequest", "input")):
        components[request]["properties"][field]["maxLength"] = max_characters
    description.setdefault("components", {})["schemas"] = components
    description["components"]["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer"},
        "xi-api-key": {"type": "apiKey", "in": "header", "name": "xi-api-key"},
    }
    for handler, operation in _operations(app, description):
        operation["operationId"] = handler.fn.__name__
        operation["summary"] = inspect.getdoc(handler.fn)
        if (data := handler.parsed_data_field) and data.has_default:
            operation["requestBody"]["required"] = False
        responses = {code: answer for code, answer in operation["responses"].items() if code < "400"}
        options = options_of(handler)
        if options.get("audio"):
            responses["200"] = _audio()
        names = [name for option, name in JSON_ANSWERS.items() if options.get(option)]
        if names:
            any_of = [{"$ref": f"#/components/schemas/{name}"} for name in names]
            responses["200"]["content"]["application/json"] = {
                "schema": any_of[0] if len(any_of) == 1 else {"anyOf": any_of}
            }
        if options.get("events"):
            # OpenAPI has no schema for server-sent events
            responses["200"]["content"]["text/event-stream"] = {}
        statuses = {*options.get("errors", ())}
        if 413 in statuses:  # the route reads a body, and a slow body is answered with 408
            statuses.add(408)
        if any("{" in path for path in handler.paths):  # a path parameter with NUL is answered with 400
            statuses.add(400)
        if not options.get("public"):
            statuses.add(401)
            operation["security"] = [{}, {"key": []}, {"xi-api-key": []}]
        openai = any(path.startswith("/v1/") for path in handler.paths)
        responses |= {str(status): _error(status, openai=openai) for status in sorted(statuses)}
        for status, answer in responses.items():
            answer["headers"] = {**answer.get("headers", {}), **_headers(handler, int(status))}
        operation["responses"] = responses
    # native routes first, OpenAI-compatible ones last
    description["paths"] = dict(
        sorted(description["paths"].items(), key=lambda item: item[0].startswith("/v1/"))
    )
    return msgspec.json.encode(description)


def _operations(app: Litestar, description: Json) -> Iterator[tuple[HTTPRouteHandler, Json]]:
    for route in app.routes:
        if isinstance(route, HTTPRoute) and (path := description["paths"].get(route.path_format or "/")):
            for handler in route.route_handlers:
                for method in handler.http_methods:
                    if operation := path.get(method.lower()):
                        yield handler, operation


def _audio() -> Json:
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "description": "The audio in the requested format",
        "content": {media_type.partition(";")[0]: binary for media_type in MEDIA_TYPES.values()},
        "headers": {
            "X-Seed": _header(
                "Seed of the generation; the same request with this seed gives the same audio (on a GPU, "
                "within one batch bucket)",
                "integer",
            ),
            "X-Retries": _header(
                "Number of segments generated again; absent on streamed responses", "integer"
            ),
            "X-Faults": _header("Faults that remained after all retries; absent if there are none", "string"),
            "X-Warnings": _header(
                "Warnings about the text: each a code, with its meaning in parentheses; absent if none",
                "string",
            ),
        },
    }


def _error(status: int, *, openai: bool) -> Json:
    name = "OpenAIError" if openai else "Error"
    return {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}},
    }


def _headers(handler: HTTPRouteHandler, status: int) -> Json:
    headers = {
        "X-Request-ID": _header("Id of the request in the server's log", "string"),
        "X-Engine": _header("Engine: dia or preview", "string"),
    }
    if "rate_limit" in options_of(handler):
        headers |= {
            "X-RateLimit-Limit": _header("Maximum requests per minute; absent without a limit", "integer"),
            "X-RateLimit-Remaining": _header("Requests left in this minute", "integer"),
            "X-RateLimit-Reset": _header("Start of the next minute in Unix seconds", "integer"),
        }
    if status in {429, 503}:
        headers["Retry-After"] = _header("Seconds to wait before a retry", "integer")
    if status >= 500 or status == 409:
        headers["x-should-retry"] = _header(
            "true, together with Retry-After, or false if a retry cannot succeed; with 409 only false",
            "string",
        )
    return headers


def _header(description: str, kind: str) -> Json:
    return {"description": description, "schema": {"type": kind}}
