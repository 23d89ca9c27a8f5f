"""WS /ws/generate: concurrent generations on one socket, with progress and optionally the audio.

Sending to a disconnected client never fails, so the session reads all the time to detect a disconnect.
Sending to a slow client blocks, which applies backpressure to the generation.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import structlog
from litestar import WebSocket, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketException

from dia_server.errors import NotFound, Overloaded, StorageUnavailable
from dia_server.services.jobs import Job, JobService
from dia_server.services.server import Metrics, SocketOutcome
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.timestamps import Timestamp
from dia_server.services.voices.references import References
from dia_server.web import generation
from dia_server.web import websocket_messages as messages
from dia_server.web.errors import classify
from dia_server.web.middleware.client_address import ClientAddress
from dia_server.web.middleware.rate_limit import RateLimit
from dia_server.web.requests.concurrency_limit import ConcurrencyLimit
from dia_server.web.requests.message_size import limit_message_size
from dia_server.web.schemas import TextWarning, text_warnings

log = structlog.get_logger()

MAX_AT_ONCE = 16
"""Maximum concurrent generations per socket."""
MAX_UNREAD = 64
"""Maximum refusals waiting to be sent per socket; at one more, reading stops until one is sent."""
MAX_SOCKETS = 1024
MAX_SOCKETS_PER_ADDRESS = 64
TRY_LATER = 4503
"""Close code of a WebSocket that is refused because too many sockets are open."""

Socket = WebSocket[Any, Any, Any]


@websocket("/ws/generate")
async def websocket_generate(
    socket: Socket,
    job_service: NamedDependency[JobService],
    references: NamedDependency[References],
    rate_limit: NamedDependency[RateLimit],
    metrics_service: NamedDependency[Metrics],
    client_address: NamedDependency[ClientAddress],
    socket_limit: NamedDependency[ConcurrencyLimit],
    client: NamedDependency[str],
) -> None:
    """Generate speech for the requests that arrive on the socket."""
    route = socket.scope["path_template"]
    session = WebSocketSession(
        socket,
        job_service,
        references,
        client,
        count=lambda: rate_limit.consume("generate", socket.scope),
        ended=lambda outcome: metrics_service.observe_generation(route, outcome),
    )
    with _hold(socket_limit, client_address(socket.scope)), metrics_service.connected(route):
        await socket.accept()
        await session.run()


class WebSocketSession:
    """A socket and its running generations."""

    def __init__(
        self,
        socket: Socket,
        jobs: JobService,
        references: References,
        client: str,
        *,
        count: Callable[[], Awaitable[object]],
        ended: Callable[[SocketOutcome], None],
    ) -> None:
        """`count` is awaited before each generation; it raises RateLimitExceeded above the rate limit.

        `ended` is called with the outcome of each generation, and with "refused" for each refused message.
        """
        self._socket = socket
        self._jobs = jobs
        self._references = references
        self._client = client
        self._count = count
        self._ended = ended
        self._gone = False
        self._sending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusals = asyncio.Semaphore(MAX_UNREAD)
        self._generations = 0
        self._running: set[str] = set()
        """Ids of the jobs that were begun on this socket and have not ended."""

    async def run(self) -> None:
        try:
            async with limit_message_size(self._socket.scope) as message_complete:
                async for text in self._socket.iter_data("text"):
                    message_complete()
                    await self._receive(text)
        finally:
            self._gone = True
            for job_id in list(self._running):
                self._spawn(self._jobs.abandon(job_id))
            while self._tasks:
                await asyncio.wait(self._tasks)

    async def _receive(self, text: str) -> None:
        try:
            message = messages.decode(text)
            if isinstance(message, messages.Cancel):
                if message.job_id not in self._running:
                    raise NotFound(f"Job {message.job_id!r} is not running on this socket")
                self._spawn(self._cancel(message.job_id))
                return
            if self._generations >= MAX_AT_ONCE:
                raise Overloaded(
                    f"Too many concurrent generations on this socket: the limit is {MAX_AT_ONCE}",
                    limit=MAX_AT_ONCE,
                )
            await self._count()
            self._generations += 1
            self._spawn(self._generate(message))
        except Exception as error:  # noqa: BLE001 - no error closes the socket
            # sent by a task: a slow client blocks sends, but its cancel or disconnect must still be read
            await self._refusals.acquire()
            refusing = self._spawn(self._refuse(error, messages.request_id_of(text)))
            refusing.add_done_callback(lambda _: self._refusals.release())

    async def _generate(self, message: messages.Generate | messages.Dialogue) -> None:
        name, data = message.request_id, message.data
        sender = ProgressSender(self._send, name)
        try:
            with generation.naming_inputs(data):
                request = generation.speech_request(data)
                reference = await generation.take_reference(data, self._references, self._socket.scope)
                delivery = Delivery(client=self._client, live=data.stream)
                running = await self._jobs.begin(request, delivery, sender.on_progress, reference)
        except Exception as error:  # noqa: BLE001 - no error closes the socket
            await self._refuse(error, name)
            self._generations -= 1
            return
        job_id = running.job_id
        self._running.add(job_id)
        outcome: SocketOutcome = "failed"
        try:
            try:
                if self._gone:
                    await self._jobs.abandon(job_id)
                await sender.begin(job_id, text_warnings(request.warnings))
                job = await self._jobs.wait(running)
            finally:
                self._running.discard(job_id)
                self._generations -= 1
            outcome = await self._send_end(job, name)
        except Exception as error:  # noqa: BLE001 - no error closes the socket
            await self._send_error(error, name, job_id)
        finally:
            self._ended(outcome)

    async def _send_end(self, job: Job, name: str | None) -> SocketOutcome:
        if job.status == "completed":
            url = f"/jobs/{job.job_id}/result"
            await self._send(messages.Complete(job_id=job.job_id, audio_url=url, request_id=name))
            return "completed"
        # the job was cancelled, or abandoned after a disconnect; its stored status may still be "processing"
        await self._send(messages.Cancelled(job_id=job.job_id, request_id=name))
        return "cancelled"

    async def _refuse(self, error: Exception, name: str | None) -> None:
        self._ended("refused")
        await self._send_error(error, name)

    async def _send_error(self, error: Exception, name: str | None, job_id: str | None = None) -> None:
        failure = classify(error)
        if failure.code == "INTERNAL_SERVER_ERROR":
            log.error("generation failed", exc_info=error)
        await self._send(
            messages.Error(
                message=failure.message,
                error_code=failure.code,
                param=failure.param,
                limit=failure.limit,
                job_id=job_id,
                request_id=name,
            )
        )

    async def _cancel(self, job_id: str) -> None:
        try:
            await self._jobs.cancel(job_id)
        except StorageUnavailable as error:
            await self._send_error(error, None, job_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send(self, message: messages.Outgoing, audio: bytes | None = None) -> None:
        """Send a message, and `audio` after it, unless the client is gone; return once they have been sent.

        Cancelling the caller does not interrupt the send.
        """
        await asyncio.shield(self._spawn(self._deliver(message, audio)))

    async def _deliver(self, message: messages.Outgoing, audio: bytes | None) -> None:
        async with self._sending:  # no message may come between an announcement and its audio
            if self._gone:
                return
            await self._socket.send_text(messages.encode(message))
            # the client may have disconnected during the announcement
            if audio is not None and not self._gone:
                await self._socket.send_bytes(audio)


class ProgressSender:
    """Sends a generation's progress and audio to the client."""

    def __init__(
        self,
        send: Callable[[messages.Outgoing, bytes | None], Awaitable[None]],
        name: str | None,
    ) -> None:
        self._send = send
        self._name = name
        self._job_id = ""
        self._begun = asyncio.Event()
        self._percent = 0

    async def begin(self, job_id: str, warnings: Sequence[TextWarning]) -> None:
        self._job_id = job_id
        self._begun.set()
        await self._tell(0, "queued", warnings)

    async def on_progress(self, audio: bytes, progress: float, timestamps: Sequence[Timestamp]) -> None:
        """Send `progress` (0 to 1) if its whole percent has risen, then `audio` and `timestamps`, if any.

        Returns once all have been sent, which applies backpressure to the generation.
        """
        await self._begun.wait()
        if (percent := int(progress * 100)) > self._percent:
            self._percent = percent
            await self._tell(percent, "generating_tokens")
        if audio:
            announcement = messages.Audio(job_id=self._job_id, size=len(audio), request_id=self._name)
            await self._send(announcement, audio)
        if timestamps:
            timed = messages.Timestamps(job_id=self._job_id, timestamps=timestamps, request_id=self._name)
            await self._send(timed, None)

    async def _tell(self, percent: int, stage: messages.Stage, warnings: Sequence[TextWarning] = ()) -> None:
        progress = messages.Progress(
            job_id=self._job_id, progress=percent, stage=stage, warnings=[*warnings], request_id=self._name
        )
        await self._send(progress, None)


@contextmanager
def _hold(limit: ConcurrencyLimit, address: str) -> Iterator[None]:
    """Count the socket while in the context; raises WebSocketException with TRY_LATER at the limit."""
    with ExitStack() as stack:
        try:
            stack.enter_context(limit.hold(address))
        except Overloaded as error:
            raise WebSocketException(detail=str(error), code=TRY_LATER) from error
        yield
