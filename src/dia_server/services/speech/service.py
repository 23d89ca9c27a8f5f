"""Generates encoded speech from requests."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager

import structlog

from dia_server.errors import ServerError
from dia_server.services.config import ConfigService
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.encoding import EncoderThreads, SpeechFile
from dia_server.services.speech.narration import Narration
from dia_server.services.speech.narrator import Narrator
from dia_server.services.speech.preparation import RequestPreparer
from dia_server.services.speech.request import PreparedRequest, Speech, SpeechRequest, Streamed
from dia_server.services.speech.timestamps import Timestamp
from dia_server.services.speech.usage import UsageMeter
from dia_server.services.voices.references import Reference

log = structlog.get_logger()

OnProgress = Callable[[bytes, float, Sequence[Timestamp]], Awaitable[None]]
"""Called with the file's next bytes (empty unless delivered live), the share generated so far, 0 to 1, and
the timestamps of a segment that has ended.
Generation waits until it returns."""


class SpeechService:
    def __init__(
        self,
        narrator: Narrator,
        preparer: RequestPreparer,
        config: ConfigService,
        finished: Callable[[Speech | None], None],
    ) -> None:
        """`finished` is called with the result of each `speak` and `stream`, or None if the server failed.

        Client errors (4xx) and requests whose client disconnects are not reported.
        """
        self._narrator = narrator
        self.prepare = preparer.prepare
        self._config = config
        self._finished = finished
        self._encoders = EncoderThreads()

    async def speak(self, request: SpeechRequest, client: str, reference: Reference | None = None) -> Speech:
        """Return the whole audio of `request`; cancellation frees the engine's slots.

        Raises InvalidVoiceId, TextTooLong, Invalid, PromptNotUsable, ModelNotLoaded, Overloaded,
        AudioProcessingError.
        """
        with self._recorded_failures():
            prepared = await self.prepare(request, reference=reference)
        return await self.speak_prepared(prepared, client)

    async def speak_prepared(self, prepared: PreparedRequest, client: str) -> Speech:
        """Return the whole audio of `prepared`; raises as `speak`."""
        with self._recorded_failures():
            speech = await self.render(prepared, Delivery(client=client))
        self._finished(speech)
        return speech

    async def stream(
        self, request: SpeechRequest, client: str, reference: Reference | None = None
    ) -> Streamed:
        """Return the audio of `request` as an iterator, once its first bytes are encoded.

        Raises as `speak` until then; the iterator raises later failures.
        """
        with self._recorded_failures():
            prepared = await self.prepare(request, reference=reference)
        meter = UsageMeter()
        audio = self._stream(prepared, Delivery(client=client, live=True), meter)
        first = await anext(audio)
        assert isinstance(first, bytes)  # a segment's timestamps follow its audio
        resolved, seed = prepared.request, prepared.utterance.seed
        return Streamed(first, audio, resolved.media_type, seed, meter, resolved.warnings)

    async def render(
        self, prepared: PreparedRequest, delivery: Delivery, on_progress: OnProgress | None = None
    ) -> Speech:
        """Return the whole audio of `prepared`.

        With live delivery, the audio is also encoded into a second, streamed file: `on_progress` receives all
        of its bytes as they are encoded.
        """
        meter = UsageMeter()
        found: list[Timestamp] = []
        streamed = self._open(prepared) if delivery.live else None
        whole = self._open(prepared, whole=True)
        async with aclosing(self._encode(prepared, delivery, meter, streamed, whole)) as encoded:
            async for audio, progress, timestamps in encoded:
                found += timestamps
                if on_progress is not None:
                    await on_progress(audio, progress, timestamps)
        return prepared.speech(await whole.finish(), meter, found if prepared.timing else None)

    async def _stream(
        self, prepared: PreparedRequest, delivery: Delivery, meter: UsageMeter
    ) -> AsyncGenerator[bytes | Sequence[Timestamp]]:
        """Yield the file's bytes and the timestamps of each segment; then report the result.

        It is reported to `finished`, unless the client disconnects.
        """
        found: list[Timestamp] = []
        waiting: list[Timestamp] = []
        begun = False
        whole = self._open(prepared, whole=True) if self._config.current.save_outputs else None
        with self._recorded_failures():
            encoding = self._encode(prepared, delivery, meter, self._open(prepared), whole)
            async with aclosing(encoding) as encoded:
                async for audio, _, timestamps in encoded:
                    found += timestamps
                    waiting += timestamps
                    if audio:
                        begun = True
                        yield audio
                    if begun and waiting:  # the first bytes come first, whatever the encoder holds back
                        yield waiting
                        waiting = []
            kept = b"" if whole is None else await whole.finish()
        self._finished(prepared.speech(kept, meter, found if prepared.timing else None))

    async def _encode(
        self,
        prepared: PreparedRequest,
        delivery: Delivery,
        meter: UsageMeter,
        streamed: SpeechFile | None,
        whole: SpeechFile | None,
    ) -> AsyncGenerator[tuple[bytes, float, Sequence[Timestamp]]]:
        """Generate the audio into both files, if given.

        Yields the next bytes of `streamed`, the progress, and the timestamps of a segment that has ended.

        Finishes `streamed`, but not `whole`: the caller does.
        """
        speed, utterance = prepared.request.speed, prepared.utterance
        if self._config.current.show_prompts:
            log.info("speaking", text=utterance.text, voice=utterance.voice)
        narration = Narration(
            self._narrator,
            prepared.plan,
            utterance,
            delivery,
            meter,
            speed=speed,
            timing=prepared.timing,
            voices=prepared.segment_voices,
        )
        async with aclosing(narration.play()) as playing:
            async for narrated in playing:
                is_audio = len(narrated.samples) > 0
                # no header before the first audio: until a byte is sent, a failure can still set the status
                gain_db = narrated.gain_db
                audio = await streamed.push(narrated.samples, gain_db) if streamed and is_audio else b""
                yield audio, narrated.progress, narrated.timestamps
                if whole and is_audio:
                    await whole.push(narrated.samples, gain_db)
        if streamed:
            yield await streamed.finish(), 1.0, ()

    @contextmanager
    def _recorded_failures(self) -> Iterator[None]:
        """Call `finished` with None if the `with` block raises, unless the error is the client's (4xx)."""
        try:
            yield
        except Exception as error:
            if not (isinstance(error, ServerError) and error.status < 500):
                self._finished(None)
            raise

    def _open(self, prepared: PreparedRequest, *, whole: bool = False) -> SpeechFile:
        request = prepared.request
        return self._encoders.open(request.response_format, request.speed, whole=whole)
