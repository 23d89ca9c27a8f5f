"""The studio at `/`, the API documentation pages, and the static files of both."""

import json
import zlib
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache
from mimetypes import guess_type
from pathlib import Path, PurePath

from litestar import MediaType, Response, Router, get
from litestar.datastructures import CacheControlHeader
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import File
from litestar.types import ControllerRouterHandler

from dia_server.vocabulary import SOUND_PATTERN, SOUNDS
from dia_server.web import openapi
from dia_server.web.content_security import policy
from dia_server.web.middleware.not_modified import NotModified
from dia_server.web.route_options import route_options
from dia_server.web.slices import SlicedResponse

STATIC = Path(__file__).parents[1] / "static"
ASSETS = {PurePath("/", path.relative_to(STATIC)): path for path in STATIC.rglob("*") if path.is_file()}
"""Files of /static by their path below it, listed at import; files added later are not served."""
PAGES = Path(__file__).parents[1] / "pages"
"""Folder of the HTML pages; not in /static, because each page has its own route and headers."""

SWAGGER_POLICY = {"Content-Security-Policy": policy(img_src="'self' data:")}
REDOC_POLICY = {
    "Content-Security-Policy": policy(
        img_src="'self' data:",
        style_src="'self' 'unsafe-inline'",  # ReDoc injects a <style> element
        worker_src="blob:",  # ReDoc runs its search in a web worker
    )
}
FRESH = CacheControlHeader(no_cache=True)
"""Cache-Control that demands revalidation, so that browsers never mix files of two versions."""

VOCABULARY = f"""\
export const SOUNDS = {json.dumps(SOUNDS)};
export const SOUND_PATTERN = {json.dumps(SOUND_PATTERN)};
""".encode()
"""JavaScript module that gives the studio's page the names of non-verbal sounds."""


def docs_router(
    handlers: Sequence[ControllerRouterHandler], dependencies: Mapping[str, Provide], max_characters: int
) -> Router:
    """Build the routes of the studio and the documentation.

    /openapi.json describes `handlers` and is built on its first request. `max_characters` is the maximum
    length of a text.
    """
    made: list[bytes] = []

    @get("/openapi.json", sync_to_thread=False)
    def openapi_json() -> Response[bytes]:
        if not made:
            made.append(openapi.document(handlers, dependencies, max_characters))
        return Response(made[0], media_type=MediaType.JSON)

    return Router(
        "/",
        route_handlers=[studio, swagger, redoc, openapi_json, vocabulary, asset],
        include_in_schema=False,
        middleware=[NotModified()],
        opt=route_options(public=True),
    )


@get("/", sync_to_thread=False, media_type=MediaType.HTML, cache_control=FRESH)
def studio() -> File:
    return File(PAGES / "studio.html", content_disposition_type="inline")


@get("/docs", sync_to_thread=False, media_type=MediaType.HTML, response_headers=SWAGGER_POLICY)
def swagger() -> File:
    return File(PAGES / "swagger.html", content_disposition_type="inline")


@get("/redoc", sync_to_thread=False, media_type=MediaType.HTML, response_headers=REDOC_POLICY)
def redoc() -> File:
    return File(PAGES / "redoc.html", content_disposition_type="inline")


@get("/static/studio/js/vocabulary.js", sync_to_thread=False, cache_control=FRESH)
def vocabulary() -> Response[bytes]:
    etag = f'"{zlib.crc32(VOCABULARY)}"'
    return Response(VOCABULARY, media_type="text/javascript", headers={"ETag": etag})


@get("/static/{file_path:path}", sync_to_thread=False)
def asset(file_path: FromPath[PurePath]) -> SlicedResponse:
    if (file := ASSETS.get(file_path)) is None:
        raise NotFoundException(f"File {file_path} not found")
    modified = file.stat().st_mtime
    content = _content(file, modified)
    headers = {
        FRESH.HEADER_NAME: FRESH.to_header(),
        "ETag": f'"{modified}-{len(content)}"',
        "Last-Modified": formatdate(modified, usegmt=True),
    }
    return SlicedResponse(body=content, media_type=guess_type(file.name)[0], headers=headers)


@lru_cache(maxsize=len(ASSETS))
def _content(file: Path, modified: float) -> bytes:
    """Return the content of `file`, from the cache while its modification time `modified` is the same."""
    return file.read_bytes()
