"""Generates encoded speech from requests."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from functools import partial

import structlog

from dia_server.engine.types import VoicePrompt
from dia_server.errors import Invalid, InvalidVoiceId, PromptNotUsable, ServerError, StorageUnavailable
from dia_server.services.config import ConfigService
from dia_server.services.speech.anchor_maker import AnchorMaker
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.encoding import EncoderThreads, SpeechFile
from dia_server.services.speech.narration import Narration
from dia_server.services.speech.narrator import Narrator
from dia_server.services.speech.request import PreparedRequest, Speech, SpeechRequest, Streamed
from dia_server.services.speech.request_texts import LONG, RequestTexts
from dia_server.services.speech.timestamps import Timestamp, Timing
from dia_server.services.speech.usage import UsageMeter
from dia_server.services.voices.references import Reference
from dia_server.services.voices.service import Voice, VoiceService, VoiceSnapshot
from dia_server.services.voices.voice_prompts import Cast, VoicePrompts
from dia_server.text.budget import encoded_length, leaves_room
from dia_server.text.plan import Plan, plan
from dia_server.text.speakers import Speaker, is_pronounceable, tag, turns

log = structlog.get_logger()

MAX_PAUSES_S = 120.0
"""Maximum total seconds of the pauses that a text asks for."""

SPEAKERS: dict[str, Speaker] = {"user": "S1", "assistant": "S2", "system": "S2"}
"""Speaker of untagged text in a chat, by role; voices with an audio prompt keep their primary speaker."""

OnProgress = Callable[[bytes, float, Sequence[Timestamp]], Awaitable[None]]
"""Called with the file's next bytes (empty unless delivered live), the share generated so far, 0 to 1, and
the timestamps of a segment that has ended.
Generation waits until it returns."""


class SpeechService:
    def __init__(
        self,
        narrator: Narrator,
        voices: VoiceService,
        prompts: VoicePrompts,
        anchors: AnchorMaker,
        config: ConfigService,
        finished: Callable[[Speech | None], None],
        *,
        texts: RequestTexts,
        normalize_loudness: bool,
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`normalize_loudness` applies to requests that do not set it.

        `refresh` loads voices and their prompts again, which another server may have changed a moment ago; it
        is None on a database without other servers.

        `finished` is called with the result of each `speak` and `stream`, or None if the server failed.

        Client errors (4xx) and requests whose client disconnects are not reported.
        """
        self._narrator = narrator
        self._voices = voices
        self._prompts = prompts
        self._anchors = anchors
        self._config = config
        self._finished = finished
        self._texts = texts
        self._normalize_loudness = normalize_loudness
        self._refresh = refresh
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
        return Streamed(first, audio, prepared.request.media_type, prepared.utterance.seed, meter)

    async def prepare(
        self,
        request: SpeechRequest,
        voice: VoiceSnapshot | None = None,
        reference: Reference | None = None,
        *,
        make_anchors: bool = True,
    ) -> PreparedRequest:
        """Resolve `request`, load the prompts of its voices and plan its text.

        `reference` replaces the prompt of the first voice. If `voice` is given, `request` has been resolved
        before, and `voice` is its snapshot from then. Waits for the anchors that the voices lack, unless
        `make_anchors` is False: the result is then not `ready`, and its plan is an estimate. Raises
        InvalidVoiceId, TextTooLong, Invalid, PromptNotUsable, and what making an anchor raises (see
        `AnchorMaker.ensure`).
        """
        try:
            return await self._prepare(request, voice, reference, make_anchors)
        except (InvalidVoiceId, PromptNotUsable):
            if self._refresh is None:
                raise
            with suppress(StorageUnavailable):  # what is in memory stays in use
                await self._refresh()
            return await self._prepare(request, voice, reference, make_anchors)

    async def _prepare(
        self,
        request: SpeechRequest,
        voice: VoiceSnapshot | None,
        reference: Reference | None,
        make_anchors: bool,
    ) -> PreparedRequest:
        if voice is None:
            request, voice = self._resolve(request, reference)
        said = await self._texts.said(request, fold_case=not self._narrator.clones)
        text = self._tag(said, request, voice)
        cast = cast_of(request, voice, text)
        timing = None
        if request.timestamps is not None:
            timing = Timing(
                request.timestamps,
                {speaker: one.voice_id for speaker, one in cast.items()},
                request.speed,
            )
            await self._narrator.require_timing(timing)
        missing = self._anchors.missing(cast.values()) if is_pronounceable(text) else []
        if missing and not make_anchors:
            await self._prompts.load(cast)  # raises what can be known before
            utterance = request.utterance(text, cast, None)
            planned = await self._plan(text, None)
            return PreparedRequest(request, voice, said, planned, utterance, None, ready=False)
        await self._anchors.ensure(missing)
        prompt = await self._load(request, voice, cast)
        planned = await self._plan(text, prompt if self._narrator.clones else None)
        utterance = request.utterance(text, cast, prompt)
        return PreparedRequest(
            request, voice, said, planned, utterance, self._gain_db(request, prompt), timing=timing
        )

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

    def _resolve(
        self, request: SpeechRequest, reference: Reference | None
    ) -> tuple[SpeechRequest, VoiceSnapshot]:
        """Resolve what `request` leaves open, so that it produces the same audio whenever it is run."""
        first = self._voices.resolve(request.voice_id)
        second = None if request.voice_id_2 is None else self._voices.resolve(request.voice_id_2)
        voice, other = self._prompts.snapshot(first, reference), second
        if other is None and not self._prompts.is_dialogue(voice):
            other = self._voices.partner(first)
        resolved = replace(
            request,
            voice_id=first.voice_id,
            voice_id_2=None if second is None else second.voice_id,
            seed=first.seed if request.seed is None else request.seed,
            normalize=self._texts.normalizes(request),
            normalize_loudness=self._normalizes_loudness(request),
        )
        return resolved, voice if other is None else replace(voice, second=self._prompts.snapshot(other))

    async def _load(self, request: SpeechRequest, voice: VoiceSnapshot, cast: Cast) -> VoicePrompt | None:
        """Return the prompt of `cast`.

        If it leaves no room for speech because of a partner that the client has not chosen, return the prompt
        of `voice` alone.
        """
        prompt = await self._prompts.load(cast)
        if prompt is None or len(cast) == 1 or request.voice_id_2 is not None:
            return prompt
        if leaves_room(encoded_length(prompt.transcript), prompt.frame_count):
            return prompt
        return await self._prompts.load({voice.primary_speaker: voice})

    def _normalizes_loudness(self, request: SpeechRequest) -> bool:
        wanted = request.normalize_loudness
        return self._normalize_loudness if wanted is None else wanted

    def _gain_db(self, request: SpeechRequest, prompt: VoicePrompt | None) -> float | None:
        """Return the gain of the request's voice; None if its loudness is unknown or to be left as it is."""
        if prompt is None or not self._narrator.clones or not self._normalizes_loudness(request):
            return None
        return prompt.gain_db

    def _tag(self, said: str, request: SpeechRequest, voice: Voice) -> str:
        """Return the text `said` with speaker tags; raises Invalid."""
        speaker = voice.primary_speaker
        if request.voice_id_2 is not None:
            speaker = "S1"
        elif request.role is not None and not voice.has_recording:
            speaker = SPEAKERS[request.role]
        if not (text := tag(said, speaker)):
            raise Invalid("The text holds nothing to say", param="text")
        return text

    async def _plan(self, text: str, prompt: VoicePrompt | None) -> Plan:
        """Cut `text` into segments that follow `prompt`.

        Raises Invalid if the prompt leaves no room for speech, or the pauses exceed MAX_PAUSES_S.
        """
        cut = partial(plan, text)
        if prompt is not None:
            cut = partial(plan, text, transcript=prompt.transcript, prompt_frames=prompt.frame_count)
        planned = await asyncio.to_thread(cut) if len(text) > LONG else cut()
        if self._narrator.clones and not is_pronounceable(text):
            planned = replace(planned, utterances=())  # Dia would babble
        if planned.pauses_s > MAX_PAUSES_S:
            raise Invalid(
                f"The text asks for {planned.pauses_s:.0f} s of pauses; the limit is {MAX_PAUSES_S:.0f} s",
                param="text",
                limit=MAX_PAUSES_S,
            )
        return planned

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
            self._narrator, prepared.plan, utterance, delivery, meter, speed=speed, timing=prepared.timing
        )
        async with aclosing(narration.play()) as playing:
            async for narrated in playing:
                is_audio = len(narrated.samples) > 0
                # no header before the first audio: until a byte is sent, a failure can still set the status
                audio = await streamed.push(narrated.samples) if streamed and is_audio else b""
                yield audio, narrated.progress, narrated.timestamps
                if whole and is_audio:
                    await whole.push(narrated.samples)
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
        return self._encoders.open(
            request.response_format, request.speed, gain_db=prepared.gain_db, whole=whole
        )


def cast_of(request: SpeechRequest, voice: VoiceSnapshot, text: str) -> Cast:
    """Return the voice of each speaker in tagged `text`, the speaker [S1] first.

    With a second voice chosen by the client, `voice` is [S1]. Otherwise `voice` speaks alone as whichever
    speaker the text has; in a text with two, it is its primary speaker, and its partner is the other one.
    """
    speakers = sorted({turn.speaker for turn in turns(text, "S1")})
    chosen = request.voice_id_2 is not None
    primary: Speaker = "S1" if chosen else voice.primary_speaker
    if voice.second is None or not (chosen or len(speakers) > 1):
        return {speakers[0] if len(speakers) == 1 else primary: voice}
    return {speaker: voice if speaker == primary else voice.second for speaker in speakers}
