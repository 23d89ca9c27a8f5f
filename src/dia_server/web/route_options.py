"""Options of a route for the middleware and the OpenAPI description, stored in Litestar's `opt`."""

from typing import Any, Literal, TypedDict, Unpack, cast

from litestar.handlers import BaseRouteHandler

LimitName = Literal["generate", "jobs", "plan", "upload"]


class RouteOptions(TypedDict, total=False):
    """Options of a route; an option that is not set is taken from the controller or router."""

    public: bool
    """True if the route needs no API key."""
    rate_limit: LimitName
    """Name of the rate limit that applies to requests."""
    generates_on_get: bool
    """True if GET generates speech, so that pages of disallowed origins may not request it."""
    errors: tuple[int, ...]
    """Error statuses to document. `openapi.py` adds 401 unless `public`, 408 if 413 is listed (the route
    reads a body), and 400 if the path has a parameter."""
    audio: bool
    """True if the route answers with audio."""
    accepted: bool
    """True if the route may answer with a job instead of audio."""
    timed: bool
    """True if the route may answer with timestamps and audio in JSON, instead of audio."""
    events: bool
    """True if the route may answer with server-sent events instead of audio."""


def route_options(**options: Unpack[RouteOptions]) -> dict[str, Any]:
    """Return `options` as the `opt` of a handler, controller or router."""
    return {**options}


def options_of(handler: BaseRouteHandler) -> RouteOptions:
    """Return the options of `handler`, merged with those of its controller and router."""
    return cast(RouteOptions, handler.opt)
