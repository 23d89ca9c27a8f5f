import asyncio
from typing import Any

import pytest
from litestar import Request

from dia_server.errors import ServerError
from dia_server.web.requests.disconnect import cancel_on_disconnect
from tests.garbage import until_freed, without_collector


class Audio:
    """Stands for what a failed generation has made."""


async def receive() -> Any:
    await asyncio.Event().wait()


async def fail() -> None:
    audio = Audio()
    await asyncio.sleep(0)
    raise ServerError(f"no more than {type(audio).__name__}")


async def test_a_failure_frees_its_frames_without_the_garbage_collector() -> None:
    request: Request[Any, Any, Any] = Request({"type": "http", "headers": []}, receive)  # type: ignore[arg-type]
    with without_collector():
        with pytest.raises(ServerError, match="no more than Audio") as raised:
            await cancel_on_disconnect(request, fail())
        del raised
        await until_freed(Audio)
