"""Facts about a route that middleware and the OpenAPI description read, kept in Litestar's `opt`."""

from typing import Any, Literal, TypedDict, Unpack, cast

from litestar.handlers import BaseRouteHandler

LimitName = Literal["generate", "jobs", "plan", "upload"]


class RouteOptions(TypedDict, total=False):
    """A route's options; those of its controller apply where it sets none."""

    public: bool
    """True if the route needs no API key."""
    rate_limit: LimitName
    """Limit that requests count against."""
    errors: tuple[int, ...]
    """Statuses of the errors to describe; 401, and 408 and 400 by the body and the path, are added."""
    audio: bool
    """True if the route answers with audio."""
    accepted: bool
    """True if it may answer with a job instead."""
    events: bool
    """True if it may answer with server-sent events."""


def route_options(**options: Unpack[RouteOptions]) -> dict[str, Any]:
    """Return `options` as the `opt` of a handler, controller or router."""
    return {**options}


def options_of(handler: BaseRouteHandler) -> RouteOptions:
    """Return the options of `handler`, with those of its controller and router."""
    return cast(RouteOptions, handler.opt)
