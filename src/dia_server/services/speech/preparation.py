"""Prepares requests: resolves them, casts and cleans their texts, loads prompts, and plans segments."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from dia_server.errors import Invalid, InvalidVoiceId, PromptNotUsable, StorageUnavailable
from dia_server.services.speech.anchor_maker import AnchorMaker
from dia_server.services.speech.casting import Casting, call, cast_of
from dia_server.services.speech.narrator import Narrator
from dia_server.services.speech.request import PreparedRequest, SpeechRequest
from dia_server.services.speech.request_texts import LONG, RequestTexts
from dia_server.services.speech.timestamps import Timing
from dia_server.services.voices.references import Reference
from dia_server.services.voices.service import CastSnapshot, Voice, VoiceService, VoiceSnapshot
from dia_server.services.voices.voice_prompts import Cast, CastPrompts, VoicePrompts
from dia_server.text.plan import NO_PROMPT, Plan, PromptSize, plan
from dia_server.text.pronunciation import Respelled
from dia_server.text.speakers import CAST_TAG, Speaker, Speakers, called, is_pronounceable, tag

MAX_PAUSES_S = 120.0
"""Maximum total seconds of the pauses that a text asks for."""

SPEAKERS: dict[str, Speaker] = {"user": "S1", "assistant": "S2", "system": "S2"}
"""Speaker of untagged text in a chat, by role; voices with an audio prompt keep their primary speaker."""


class RequestPreparer:
    def __init__(
        self,
        narrator: Narrator,
        voices: VoiceService,
        prompts: VoicePrompts,
        anchors: AnchorMaker,
        *,
        texts: RequestTexts,
        normalize_loudness: bool,
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`normalize_loudness` applies to requests that do not set it.

        `refresh` loads voices and their prompts again, which another server may have changed a moment ago; it
        is None on a database without other servers.
        """
        self._narrator = narrator
        self._voices = voices
        self._prompts = prompts
        self._anchors = anchors
        self._texts = texts
        self._normalize_loudness = normalize_loudness
        self._refresh = refresh

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
        voices = call(request, voices, text, partial(self._find, voices.voice))
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
        prompts = await self._load(cast)
        planned = await self._plan(text, casting, prompts if self._narrator.clones else None)
        utterance = request.utterance(text, cast)
        return PreparedRequest(request, voices, said, planned, utterance, prompts, amplified, timing=timing)

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

    def _find(self, own: VoiceSnapshot, name: str) -> VoiceSnapshot:
        """Return a voice by its id, with the reference if it is the request's `own`.

        Raises InvalidVoiceId.
        """
        voice = self._voices.resolve(name)
        return own if voice.voice_id == own.voice_id else self._prompts.snapshot(voice)

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

    async def _load(self, cast: Cast) -> CastPrompts:
        """Return the prompts of voices; raises PromptNotUsable if one of more than two has none for Dia."""
        prompts = await self._prompts.load(cast)
        if len(cast) > 2 and self._narrator.clones:
            for speaker, voice in cast.items():
                if speaker not in prompts.prompts:
                    raise PromptNotUsable(
                        f"Voice {voice.voice_id!r} has no anchor, which each of more than two voices needs, "
                        "and DIA_VOICE_ANCHORS=off makes none",
                        param="voice_id",
                    )
        return prompts

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
        named = {speaker.upper() for speaker in request.voices or {}}
        speaker = voice.primary_speaker
        if request.voice_id_2 is not None or ("S2" in named and "S1" not in named):
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

        cut = partial(plan, text, size, casting.names, self._texts.max_columns)
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
