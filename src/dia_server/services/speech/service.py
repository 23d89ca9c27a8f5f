"""Speech: from what a client asks for to encoded audio."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import structlog

from dia_server.audio.encode import MEDIA_TYPES as MEDIA_TYPES
from dia_server.audio.encode import AudioFormat as AudioFormat
from dia_server.engine.types import Flow, Utterance, VoicePrompt
from dia_server.errors import Invalid, ServerError, TextTooLong
from dia_server.services.config import ConfigService
from dia_server.services.speech.encoding import EncoderThreads, SpeechFile
from dia_server.services.speech.narrator import UNLIMITED_S, Narrator
from dia_server.services.speech.usage import Usage, UsageMeter
from dia_server.services.voices.service import Voice, VoiceService, VoiceSnapshot
from dia_server.services.voices.voice_prompts import VoicePrompts, combine_prompts
from dia_server.text.plan import Plan as Plan
from dia_server.text.plan import plan
from dia_server.text.speakers import Speaker, tag

log = structlog.get_logger()

LONG = 1000
"""Characters of a text that is planned beside the event loop: 4,096 may take it 50 ms."""
MAX_PAUSES_S = 120.0
"""Of silence that a text may ask for, in all."""
FRAME = 512
"""Samples of one of the codec's frames, in which the room for a prompt is counted."""
AHEAD_S = 40.0
"""Of speech that a streamed request may be made ahead of its reader: 7 MB of samples."""

SPEAKERS: dict[str, Speaker] = {"user": "S1", "assistant": "S2", "system": "S2"}
"""Who says untagged text in a chat, by role."""

Role = Literal["user", "assistant", "system"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRequest:
    """What a client asks for; None stands for "as the voice or the model has it"."""

    text: str
    voice_id: str
    voice_id_2: str | None = None
    """Says [S2], where it is another voice than the first."""
    response_format: AudioFormat = "wav"
    speed: float = 1.0
    role: Role | None = None
    temperature: float | None = None
    cfg_scale: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    use_torch_compile: bool | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Speech:
    audio: bytes
    media_type: str
    seed: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class Streamed:
    """Speech that is sent while it is made: iterate over it for the file's bytes, and close it."""

    first: bytes
    remaining: AsyncGenerator[bytes]
    media_type: str
    seed: int
    meter: UsageMeter

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        yield self.first
        async for audio in self.remaining:
            yield audio

    async def aclose(self) -> None:
        """Give the engine's slots back, whether or not anything has been taken."""
        await self.remaining.aclose()


Listener = Callable[[bytes, float], Awaitable[None]]
"""Is told how much of the whole is made, 0 to 1, and, where it is heard live, the file's next bytes; what is
made waits for it."""


class SpeechService:
    def __init__(
        self,
        narrator: Narrator,
        voices: VoiceService,
        prompts: VoicePrompts,
        config: ConfigService,
        finished: Callable[[SpeechRequest, Voice, Speech | None], None],
        *,
        max_characters: int,
    ) -> None:
        """`finished` is told of every request that is answered here; None is a failure of the server's."""
        self._narrator = narrator
        self._voices = voices
        self._prompts = prompts
        self._config = config
        self._finished = finished
        self._max_characters = max_characters
        self._encoders = EncoderThreads()

    async def speak(self, request: SpeechRequest, client: str) -> Speech:
        """Make the whole audio of `request`; cancelling this frees the engine's slots, which clients share.

        Raises InvalidVoiceId, TextTooLong, Invalid, PromptNotUsable, ModelNotLoaded, Overloaded,
        AudioProcessingError.
        """
        request, voice = self.resolve(request)
        try:
            speech = await self.make(request, voice, client=client)
        except Exception as error:
            self._failed(request, voice, error)
            raise
        self._finished(request, voice, speech)
        return speech

    async def stream(self, request: SpeechRequest, client: str) -> Streamed:
        """Make `request` and hand it out as it comes, once the first audio is there; raises as `speak`.

        What fails later is raised by the iterator.
        """
        request, voice = self.resolve(request)
        meter = UsageMeter()
        audio = self._stream(request, voice, meter, client)
        first = await anext(audio)
        assert request.seed is not None
        return Streamed(first, audio, MEDIA_TYPES[request.response_format], request.seed, meter)

    async def plan(self, request: SpeechRequest) -> Plan:
        """Show how `request` would be cut into segments."""
        request, voice = self.resolve(request)
        return (await self._script(request, voice))[0]

    def resolve(self, request: SpeechRequest) -> tuple[SpeechRequest, VoiceSnapshot]:
        """Decide what `request` leaves open: with its voice, it makes the same audio at any later time.

        Raises InvalidVoiceId, TextTooLong, Invalid.
        """
        first = self._voices.resolve(request.voice_id)
        second = None if request.voice_id_2 is None else self._voices.resolve(request.voice_id_2)
        self._tagged(request, first)
        settled = replace(
            request,
            voice_id=first.voice_id,
            voice_id_2=None if second is None else second.voice_id,
            seed=first.seed if request.seed is None else request.seed,
        )
        return settled, self._prompts.snapshot(first, second)

    async def accept(self, request: SpeechRequest) -> tuple[SpeechRequest, VoiceSnapshot]:
        """Settle a request that is made later; raises what `speak` would refuse it for."""
        request, voice = self.resolve(request)
        await self._script(request, voice)
        return request, voice

    async def make(
        self,
        request: SpeechRequest,
        voice: VoiceSnapshot,
        listener: Listener | None = None,
        *,
        live: bool = False,
        background: bool = False,
        client: str = "",
    ) -> Speech:
        """Make the audio of a settled request; `background` lets others go first, without a client.

        What is heard `live` goes to `listener` to the last byte, before the whole file is finished.
        """
        meter = UsageMeter()
        whole = self._open(request, whole=True)
        sent = self._open(request) if live else None
        rendering = self._render(request, voice, meter, sent, whole, background=background, client=client)
        async with aclosing(rendering):
            async for audio, progress in rendering:
                if listener is not None:
                    await listener(audio, progress)
        return _speech(request, await whole.finish(), meter)

    async def _stream(
        self, request: SpeechRequest, voice: VoiceSnapshot, meter: UsageMeter, client: str
    ) -> AsyncGenerator[bytes]:
        """The file's bytes; a client that leaves counts neither as a success nor as a failure."""
        whole = self._open(request, whole=True) if self._config.current.save_outputs else None
        try:
            rendering = self._render(request, voice, meter, self._open(request), whole, client=client)
            async with aclosing(rendering):
                async for audio, _ in rendering:
                    if audio:
                        yield audio
            kept = b"" if whole is None else await whole.finish()
        except Exception as error:
            self._failed(request, voice, error)
            raise
        self._finished(request, voice, _speech(request, kept, meter))

    def _failed(self, request: SpeechRequest, voice: Voice, error: Exception) -> None:
        """Tell of a failure, but for what the client has to mend, whenever that is found."""
        if not (isinstance(error, ServerError) and error.status < 500):
            self._finished(request, voice, None)

    async def _render(
        self,
        request: SpeechRequest,
        voice: VoiceSnapshot,
        meter: UsageMeter,
        sent: SpeechFile | None,
        whole: SpeechFile | None,
        *,
        background: bool = False,
        client: str,
    ) -> AsyncGenerator[tuple[bytes, float]]:
        """Speak into both files; returns what is new of `sent`, and how much of the recording is made.

        What is `sent` is heard while it is made.
        """
        live = sent is not None
        planned, base = await self._script(request, voice)
        base = replace(base, flow=Flow(client))
        if self._config.current.show_prompts:
            log.info("speaking", text=base.text, voice=base.voice)
        ahead_s = AHEAD_S if live else UNLIMITED_S
        narration = self._narrator.narrate(
            planned, base, meter, speed=request.speed, live=live, background=background, ahead_s=ahead_s
        )
        async with aclosing(narration):
            async for narrated in narration:
                is_audio = len(narrated.samples) > 0
                # no header before the first audio: until then a failure has its status
                yield await sent.push(narrated.samples) if sent and is_audio else b"", narrated.progress
                if whole and is_audio:
                    await whole.push(narrated.samples)
        if sent:
            yield await sent.finish(), 1.0

    async def _script(self, request: SpeechRequest, voice: VoiceSnapshot) -> tuple[Plan, Utterance]:
        """What is said, in segments, and how: the text of the utterance is the whole."""
        prompt, name = await self._prompts.load(voice), voice.voice_id
        if voice.second is not None:
            prompt = combine_prompts(prompt, await self._prompts.load(voice.second))
            name += f"+{voice.second.voice_id}"
        text = self._tagged(request, voice)
        cut = partial(plan, text, **_room(prompt if self._narrator.clones else None))
        planned = await asyncio.to_thread(cut) if len(text) > LONG else cut()
        if planned.pauses_s > MAX_PAUSES_S:
            raise Invalid(
                f"The text asks for {planned.pauses_s:.0f} s of pauses; the limit is {MAX_PAUSES_S:.0f} s",
                param="text",
                limit=MAX_PAUSES_S,
            )
        wishes: dict[str, Any] = {
            "temperature": request.temperature,
            "cfg_scale": request.cfg_scale,
            "top_p": request.top_p,
            "max_tokens": request.max_tokens,
            "compile": request.use_torch_compile,
        }
        assert request.seed is not None
        return planned, Utterance(
            text,
            name,
            seed=request.seed,
            prompt=prompt,
            **{name: value for name, value in wishes.items() if value is not None},
        )

    def _open(self, request: SpeechRequest, *, whole: bool = False) -> SpeechFile:
        return self._encoders.open(request.response_format, request.speed, whole=whole)

    def _tagged(self, request: SpeechRequest, voice: Voice) -> str:
        if len(request.text) > self._max_characters:
            raise TextTooLong(
                f"The text has {len(request.text)} characters; the limit is {self._max_characters}",
                param="text",
                limit=self._max_characters,
            )
        speaker = voice.primary_speaker
        if request.voice_id_2 is not None:
            speaker = "S1"
        elif request.role is not None and voice.audio_prompt is None:
            speaker = SPEAKERS[request.role]
        if not (text := tag(request.text, speaker)):
            raise Invalid("The text holds nothing to say", param="text")
        return text


def _room(prompt: VoicePrompt | None) -> dict[str, Any]:
    """The planner's view of a prompt."""
    if prompt is None:
        return {}
    return {"transcript": prompt.transcript, "prompt_frames": -(-len(prompt.samples) // FRAME)}


def _speech(request: SpeechRequest, audio: bytes, meter: UsageMeter) -> Speech:
    assert request.seed is not None
    return Speech(audio, MEDIA_TYPES[request.response_format], request.seed, meter.total(request.speed))
