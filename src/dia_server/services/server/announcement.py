"""Tells the log when the server can be used, and where."""

import asyncio
from collections.abc import Callable

import structlog

from dia_server.engine.pool import AnyEngine

log = structlog.get_logger()

LISTENING_POLL_S = 0.01
ENGINE_POLL_S = 0.1


class Announcement:
    """Logs `started` once connections are accepted and the engine is ready; until then `loading`."""

    def __init__(self, engine: AnyEngine, url: str, is_listening: Callable[[], bool]) -> None:
        self._engine = engine
        self._url = url
        self._is_listening = is_listening
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while not self._is_listening():  # noqa: ASYNC110 - the kernel tells of it only when asked
            await asyncio.sleep(LISTENING_POLL_S)
        engine = self._engine
        if not engine.ready:
            log.info("loading", engine=engine.name, url=self._url)
        while not engine.ready:  # noqa: ASYNC110 - a thread's attribute, which may take minutes
            await asyncio.sleep(ENGINE_POLL_S)
        log.info("started", engine=engine.name, url=self._url)
