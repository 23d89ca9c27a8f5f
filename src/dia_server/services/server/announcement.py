"""Logs the URL of the started server, and whether its engine is loading or ready."""

import asyncio
from collections.abc import Callable

import structlog

from dia_server.engine.any_engine import AnyEngine

log = structlog.get_logger()

LISTENING_POLL_S = 0.01
"""Seconds between checks whether the socket is listening."""
ENGINE_POLL_S = 0.1
"""Seconds between checks whether the engine is ready."""


class Announcement:
    """Once connections are accepted, logs `loading` if the engine is not ready, then `started` once it is."""

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
        while not self._is_listening():  # noqa: ASYNC110 - the kernel sends no event
            await asyncio.sleep(LISTENING_POLL_S)
        engine = self._engine
        if not engine.ready:
            log.info("loading", engine=engine.name, url=self._url)
        while not engine.ready:  # noqa: ASYNC110 - loading takes minutes; polling is cheap
            await asyncio.sleep(ENGINE_POLL_S)
        log.info("started", engine=engine.name, url=self._url)
