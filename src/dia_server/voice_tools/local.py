"""Voices in a data folder that no server uses."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from dia_server import logs
from dia_server.composition import Services
from dia_server.db.lock import AlreadyServed
from dia_server.errors import ServerError
from dia_server.lifespan import open_data
from dia_server.services.speech.anchor_maker import SCRIPT
from dia_server.services.speech.candidate_request import CandidateRequest
from dia_server.services.voices.candidates import Candidate
from dia_server.settings import Settings
from dia_server.timing import Timing
from dia_server.voice_tools.remote import VoiceToolError
from dia_server.voice_tools.tables import VoiceLine, sound_of

POLL_S = 0.1
"""Seconds between looks at unfinished candidates."""

T = TypeVar("T")


class Local:
    """Opens the folder for each call, locked against servers; `make` also loads the model."""

    def __init__(self, conf: Settings, given: Collection[str]) -> None:
        self._conf = conf
        self._given = given
        logs.configure(conf.log_format, conf.log_level)

    def voices(self) -> list[VoiceLine]:
        async def work(services: Services) -> list[VoiceLine]:
            anchors = services.anchors.all
            return [
                VoiceLine(
                    voice.voice_id,
                    voice.name,
                    voice.style,
                    sound_of(voice.audio_prompt, anchors.get(voice.voice_id)),
                )
                for voice in services.voices.all.values()
            ]

        return self._run(work)

    def make(
        self, voice_id: str, *, count: int, seed: int | None, style: str | None, text: str | None
    ) -> Sequence[Candidate]:
        """Make candidates and wait for them; return them, the most promising first."""
        wish = CandidateRequest(count=count, seed=seed, style=style, text=SCRIPT if text is None else text)

        async def work(services: Services) -> Sequence[Candidate]:
            maker = services.candidate_maker
            async with _engine(services):
                await maker.make(voice_id, wish)
                while True:
                    candidates = await maker.ranked(voice_id)
                    if not any(one.status == "pending" or maker.is_checking(one) for one in candidates):
                        return candidates
                    await asyncio.sleep(POLL_S)

        return self._run(work)

    def keep(self, voice_id: str, candidate_id: str) -> None:
        self._run(lambda services: services.candidate_maker.keep(voice_id, candidate_id))

    def export(self, voice_ids: Sequence[str], file: Path, licence: str | None) -> None:
        async def work(services: Services) -> None:
            with await services.library.export(voice_ids, licence=licence) as archive:
                await asyncio.to_thread(_write, file, archive)

        self._run(work)

    def add(self, file: Path, *, replace: bool) -> list[str]:
        """Import an archive; return the ids of its voices."""

        async def work(services: Services) -> list[str]:
            with await asyncio.to_thread(file.open, "rb") as archive:
                imported = await services.library.add(archive, overwrite=replace)
            return [voice.voice_id for voice in imported.voices]

        return self._run(work)

    def _run(self, work: Callable[[Services], Coroutine[Any, Any, T]]) -> T:
        """Run `work` on the opened folder; raises VoiceToolError."""

        async def run() -> T:
            services = Services(self._conf, self._given, None, Timing())
            async with AsyncExitStack() as stack:
                stack.push_async_callback(asyncio.to_thread, services.prompt_decoder.close)
                await open_data(services, stack)
                return await work(services)

        try:
            return asyncio.run(run())
        except (ServerError, AlreadyServed) as error:
            raise VoiceToolError(str(error)) from None


@asynccontextmanager
async def _engine(services: Services) -> AsyncIterator[None]:
    """Start the engine and the maker of candidates; wait until the model is loaded, or has failed to."""
    async with AsyncExitStack() as stack:
        services.engine.start()
        stack.push_async_callback(asyncio.to_thread, services.engine.stop)
        stack.push_async_callback(services.whisper.close)
        stack.push_async_callback(services.candidate_maker.stop)
        while not services.engine.ready and services.engine.error is None:  # noqa: ASYNC110 - no event
            await asyncio.sleep(POLL_S)
        yield


def _write(file: Path, archive: Any) -> None:
    with file.open("wb") as target:
        shutil.copyfileobj(archive, target)
