"""WS /ws/generate: several generations at once on one socket, with progress and, if wished, the audio.

Sending to a client that is gone never fails, so a socket is always being read too: the end of what comes
in is the end of its work.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog
from litestar import WebSocket, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketException

from dia_server.errors import NotFound, Overloaded, StorageUnavailable
from dia_server.services.jobs import Job, JobService
from dia_server.services.speech import Samples, SpeechRequest, SpeechStream
from dia_server.web import live_messages as messages
from dia_server.web.errors import classify
from dia_server.web.rate_limit import RateLimit

log = structlog.get_logger()

MAX_AT_ONCE = 16
"""Generations of one socket."""
FORBIDDEN = 4403

Socket = WebSocket[Any, Any, Any]


@websocket("/ws/generate")
async def live(
    socket: Socket, job_service: NamedDependency[JobService], rate_limit: NamedDependency[RateLimit]
) -> None:
    """Generate speech in conversation with a client."""
    _check_origin(socket)
    await socket.accept()
    await Conversation(socket, job_service, lambda: rate_limit.take("generate", socket.scope)).run()


class Conversation:
    """One socket and what is being generated for it."""

    def __init__(self, socket: Socket, jobs: JobService, count: Callable[[], object]) -> None:
        """`count` is called for each generation; it raises where there are too many."""
        self._socket = socket
        self._jobs = jobs
        self._count = count
        self._gone = False
        self._outgoing: asyncio.Queue[tuple[messages.Outgoing, bytes | None]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._generations = 0
        self._running: set[str] = set()
        """Ids of the jobs that are made for this socket."""

    async def run(self) -> None:
        writing = asyncio.create_task(self._write())
        try:
            async for text in self._socket.iter_data("text"):
                self._receive(text)
        finally:
            self._gone = True
            for job_id in list(self._running):
                self._spawn(self._cancel(job_id))
            while self._tasks:
                await asyncio.wait(self._tasks)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def _receive(self, text: str) -> None:
        try:
            message = messages.decode(text)
            if isinstance(message, messages.Cancel):
                if message.job_id not in self._running:
                    raise NotFound(f"No job {message.job_id!r} runs for this socket")
                self._spawn(self._cancel(message.job_id))
                return
            if self._generations >= MAX_AT_ONCE:
                raise Overloaded(f"{MAX_AT_ONCE} generations run for this socket already")
            self._count()
            self._generations += 1
            self._spawn(self._generate(message))
        except Exception as error:  # noqa: BLE001 - the socket stays open, whatever it was
            self._send_error(error, messages.request_id_of(text))

    async def _generate(self, message: messages.Generate) -> None:
        name = message.request_id
        wanted = msgspec.structs.asdict(message.data)
        stream = wanted.pop("stream")
        request = SpeechRequest(**wanted)
        heard: asyncio.Queue[tuple[Samples, float] | None] = asyncio.Queue()
        try:
            job = await self._jobs.begin(request, lambda *piece: heard.put_nowait(piece))
        except Exception as error:  # noqa: BLE001 - the socket stays open, whatever it was
            self._generations -= 1
            self._send_error(error, name)
            return
        self._running.add(job.job_id)
        try:
            if self._gone:
                await self._cancel(job.job_id)
            ending = asyncio.create_task(self._jobs.wait(job.job_id))
            ending.add_done_callback(lambda _: heard.put_nowait(None))
            await self._follow(job, heard, SpeechStream(request) if stream else None, name)
            self._send_end(await ending, name)
        except Exception as error:  # noqa: BLE001 - the socket stays open, whatever it was
            self._send_error(error, name, job.job_id)
        finally:
            self._generations -= 1
            self._running.discard(job.job_id)

    async def _follow(
        self,
        job: Job,
        heard: asyncio.Queue[tuple[Samples, float] | None],
        stream: SpeechStream | None,
        name: str | None,
    ) -> None:
        """Tell of a job's progress, and send its audio, until it is over."""
        self._send(messages.Progress(job_id=job.job_id, progress=0, stage="queued", request_id=name))
        told, progress = 0, 0.0
        while piece := await heard.get():
            samples, progress = piece
            if (percent := int(progress * 100)) > told:
                told = percent
                self._send(
                    messages.Progress(
                        job_id=job.job_id, progress=told, stage="generating_tokens", request_id=name
                    )
                )
            if stream is not None:
                self._send_audio(job, await asyncio.to_thread(stream.push, samples), name)
        if stream is not None and progress == 1.0:
            self._send_audio(job, await asyncio.to_thread(stream.finish), name)

    def _send_audio(self, job: Job, audio: bytes, name: str | None) -> None:
        if audio:
            self._send(messages.Audio(job_id=job.job_id, size=len(audio), request_id=name), audio)

    def _send_end(self, job: Job, name: str | None) -> None:
        match job.status:
            case "completed":
                url = f"/jobs/{job.job_id}/result"
                self._send(messages.Complete(job_id=job.job_id, audio_url=url, request_id=name))
            case "cancelled":
                self._send(messages.Cancelled(job_id=job.job_id, request_id=name))
            case _:
                self._send(
                    messages.Error(
                        message=job.error or "Generation failed",
                        error_code="GENERATION_FAILED",
                        job_id=job.job_id,
                        request_id=name,
                    )
                )

    def _send_error(self, error: Exception, name: str | None, job_id: str | None = None) -> None:
        match error:
            case msgspec.ValidationError():
                code, text = "VALIDATION_ERROR", str(error)
            case msgspec.DecodeError():
                code, text = "BAD_REQUEST", f"The message is not valid JSON: {error}"
            case _:
                failure = classify(error)
                code, text = failure.code, failure.message
        if code == "INTERNAL_SERVER_ERROR":
            log.error("generation failed", exc_info=error)
        self._send(messages.Error(message=text, error_code=code, job_id=job_id, request_id=name))

    async def _cancel(self, job_id: str) -> None:
        try:
            await self._jobs.cancel(job_id)
        except StorageUnavailable as error:
            self._send_error(error, None, job_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send(self, message: messages.Outgoing, audio: bytes | None = None) -> None:
        if not self._gone:
            self._outgoing.put_nowait((message, audio))

    async def _write(self) -> None:
        """The only one who sends: an announcement and its audio stay together."""
        while True:
            message, audio = await self._outgoing.get()
            await self._socket.send_text(messages.encode(message))
            if audio is not None:
                await self._socket.send_bytes(audio)


def _check_origin(socket: Socket) -> None:
    """Refuse pages of other origins, as CORS does for HTTP: browsers don't ask before they open a socket."""
    origin, cors = socket.headers.get("origin"), socket.app.cors_config
    allowed = [] if cors is None else cors.allow_origins
    own = urlsplit(origin or "").netloc == socket.headers.get("host")
    if origin is not None and not own and not {"*", origin} & set(allowed):
        raise WebSocketException(detail=f"Pages of {origin} may not use this server", code=FORBIDDEN)
