"""Generates encoded speech from requests."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from functools import partial

import structlog

from dia_server.errors import Invalid, InvalidVoiceId, PromptNotUsable, ServerError, StorageUnavailable
from dia_server.services.config import ConfigService
from dia_server.services.speech.anchor_maker import AnchorMaker
from dia_server.services.speech.casting import Casting, call, cast_of
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.encoding import EncoderThreads, SpeechFile
from dia_server.services.speech.narration import Narration
from dia_server.services.speech.narrator import Narrator
from dia_server.services.speech.request import PreparedRequest, Speech, SpeechRequest, Streamed
from dia_server.services.speech.request_texts import LONG, RequestTexts
from dia_server.services.speech.timestamps import Timestamp, Timing
from dia_server.services.speech.usage import UsageMeter
from dia_server.services.voices.references import Reference
from dia_server.services.voices.service import CastSnapshot, Voice, VoiceService
from dia_server.services.voices.voice_prompts import CastPrompts, VoicePrompts
from dia_server.text.budget import encoded_length, leaves_room
from dia_server.text.plan import NO_PROMPT, Plan, PromptSize, plan
from dia_server.text.pronunciation import Respelled
from dia_server.text.speakers import CAST_TAG, Speaker, Speakers, called, is_pronounceable, recast, tag

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
        resolved, seed = prepared.request, prepared.utterance.seed
        return Streamed(first, audio, resolved.media_type, seed, meter, resolved.warnings)

    async def prepare(
        self,
        request: SpeechRequest,
        voices: CastSnapshot | None = None,
        reference: Reference | None = None,
        *,
        make_anchors: bool = True,
    ) -> PreparedRequest:
        """Resolve `request`, load the prompts of its voices and plan its text.

        `reference` replaces the prompt of the first voice. If `voices` is given, `request` has been resolved
        before, and `voices` is its snapshot from then. Waits for the anchors that the voices lack, unless
        `make_anchors` is False: the result is then not `ready`, and its plan is an estimate. Raises
        InvalidVoiceId, TextTooLong, Invalid, PromptNotUsable, and what making an anchor raises (see
        `AnchorMaker.ensure`).
        """
        try:
            return await self._prepare(request, voices, reference, make_anchors)
        except (InvalidVoiceId, PromptNotUsable):
            if self._refresh is None:
                raise
            with suppress(StorageUnavailable):  # what is in memory stays in use
                await self._refresh()
            return await self._prepare(request, voices, reference, make_anchors)

    async def _prepare(
        self,
        request: SpeechRequest,
        voices: CastSnapshot | None,
        reference: Reference | None,
        make_anchors: bool,
    ) -> PreparedRequest:
        if voices is None:
            request, voices = self._resolve(request, reference)
        cleaned = await self._texts.cleaned(request)
        text = self._tag(cleaned, request, voices.voice)
        voices = call(request, voices, text, lambda name: self._prompts.snapshot(self._voices.resolve(name)))
        casting = self._cast(request, voices, text)
        said = await self._respell(cleaned, text, request, casting)
        text = self._tag(said.text, request, voices.voice)
        cast, amplified = casting.cast, self._narrator.clones and self._normalizes_loudness(request)
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
            prompts = await self._prompts.load(cast)  # raises what can be known before
            planned = await self._plan(text, casting, None)
            utterance = request.utterance(text, cast)
            return PreparedRequest(request, voices, said, planned, utterance, prompts, amplified, ready=False)
        await self._anchors.ensure(missing)
        prompts = await self._load(request, voices, casting)
        planned = await self._plan(text, casting, prompts if self._narrator.clones else None)
        utterance = request.utterance(text, cast)
        return PreparedRequest(request, voices, said, planned, utterance, prompts, amplified, timing=timing)

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
    ) -> tuple[SpeechRequest, CastSnapshot]:
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
        return resolved, CastSnapshot(voice, None if other is None else self._prompts.snapshot(other))

    def _cast(self, request: SpeechRequest, voices: CastSnapshot, text: str) -> Casting:
        """Return who speaks in tagged `text`.

        Raises Invalid, also if a recording with two speakers is to speak beside other voices.
        """
        casting = cast_of(request, voices, text)
        if casting.names and len(casting.cast) > 1:
            for voice in casting.cast.values():
                if self._prompts.is_dialogue(voice):
                    raise Invalid(
                        f"Voice {voice.voice_id!r} cannot speak beside other voices, because its recording "
                        "has two speakers",
                        param="voice_id",
                    )
        return casting

    async def _load(self, request: SpeechRequest, voices: CastSnapshot, casting: Casting) -> CastPrompts:
        """Return the prompts of the voices.

        In a text of two voices, leaves out the prompt of a partner that the client has not chosen, if the two
        leave no room for speech. Raises PromptNotUsable if one of more than two voices has no prompt for Dia.
        """
        prompts = await self._prompts.load(casting.cast)
        if (speakers := recast(casting.cast)) is None:
            self._require_prompts(prompts)
            return prompts
        prompt = prompts.prompt(speakers)
        if prompt is None or casting.names or len(casting.cast) == 1 or request.voice_id_2 is not None:
            return prompts
        if leaves_room(encoded_length(prompt.transcript), prompt.frame_count):
            return prompts
        (partner,) = casting.cast.keys() - {voices.voice.primary_speaker}
        return prompts.without_prompt(partner)

    def _require_prompts(self, prompts: CastPrompts) -> None:
        for speaker, voice in prompts.cast.items():
            if self._narrator.clones and speaker not in prompts.prompts:
                raise PromptNotUsable(
                    f"Voice {voice.voice_id!r} has no anchor, which each of more than two voices needs; the "
                    "setting `voice_anchors` is off",
                    param="voice_id",
                )

    def _normalizes_loudness(self, request: SpeechRequest) -> bool:
        wanted = request.normalize_loudness
        return self._normalize_loudness if wanted is None else wanted

    async def _respell(
        self, cleaned: str, tagged: str, request: SpeechRequest, casting: Casting
    ) -> Respelled:
        """Return `cleaned` as its voices say it; `tagged` is the same text with a tag at its beginning."""
        alone = next(iter(casting.cast.values()))  # a recording of two people speaks as both
        tags = called(tagged)
        voices = {one: casting.cast.get(casting.names.get(one, one), alone).voice_id for one in tags}
        fold_case = not self._narrator.clones and self._texts.normalizes(request)
        return await self._texts.respelled(cleaned, voices, tags[0], fold_case=fold_case)

    def _tag(self, said: str, request: SpeechRequest, voice: Voice) -> str:
        """Return the text `said` with speaker tags; raises Invalid."""
        speaker = voice.primary_speaker
        if request.voice_id_2 is not None:
            speaker = "S1"
        elif request.role is not None and not voice.has_recording:
            speaker = SPEAKERS[request.role]
        if not (text := tag(said, speaker, CAST_TAG)):
            raise Invalid("The text holds nothing to say", param="text")
        return text

    async def _plan(self, text: str, casting: Casting, prompts: CastPrompts | None) -> Plan:
        """Cut `text` into segments that follow `prompts`.

        Raises Invalid if a prompt leaves no room for speech, or the pauses exceed MAX_PAUSES_S.
        """

        def size(speakers: Speakers) -> PromptSize:
            prompt = None if prompts is None else prompts.prompt(speakers)
            return NO_PROMPT if prompt is None else PromptSize(prompt.transcript, prompt.frame_count)

        cut = partial(plan, text, size, casting.names)
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
