"""Loads the audio prompts of voices for the engine: samples and transcript."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from dia_server.audio import prompt as audio
from dia_server.engine.types import Recording, Samples, VoicePrompt
from dia_server.errors import PromptNotUsable
from dia_server.services.voices.anchors import AnchorStore
from dia_server.services.voices.gains import VoiceGains
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.recordings import Recordings
from dia_server.services.voices.references import Reference, References
from dia_server.services.voices.service import Voice, VoiceSnapshot
from dia_server.text.speakers import TAG, tag, turns
from dia_server.units import MIB, SAMPLE_RATE

CACHE_SIZE = 128 * MIB
"""Maximum bytes of samples cached in memory: 12 minutes of audio."""
PAUSE = Recording(np.zeros(SAMPLE_RATE // 4, np.float32), digest="pause")
"""Silence between two combined prompts: 0.25 s of samples."""


Cast = Mapping[str, Voice]
"""The voice of each speaker of a text, in the order of the speakers."""


@dataclass(frozen=True, slots=True)
class CastPrompts:
    """The voices of a text, and their prompts."""

    cast: Cast
    prompts: Mapping[str, VoicePrompt]
    """Prompts by speaker; voices that have none are missing."""
    dialogues: frozenset[str]
    """Speakers whose prompt has two speakers."""

    def voice(self, tags: Mapping[str, str]) -> str:
        """Return the ids of the voices for which `tags` stand: "aria+luna"."""
        return "+".join(self.cast[speaker].voice_id for speaker in tags.values() if speaker in self.cast)

    def prompt(self, tags: Mapping[str, str]) -> VoicePrompt | None:
        """Return the prompts of the speakers for whom `tags` stand, combined; None if none of them has one.

        A prompt that has one speaker gets the tag of that speaker.
        """
        prompts = [
            prompt if speaker in self.dialogues else retag(tag, prompt)
            for tag, speaker in tags.items()
            if (prompt := self.prompts.get(speaker)) is not None
        ]
        return combine(prompts)


class VoicePrompts:
    """Caches recently used samples, so that speech rarely waits for the disk."""

    def __init__(
        self,
        prompts: PromptService,
        recordings: Recordings,
        anchors: AnchorStore,
        references: References,
        *,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        self._prompts = prompts
        self._anchors = anchors
        self._recordings = recordings
        self._references = references
        self._cache_size = cache_size
        self._cache: OrderedDict[str, Samples] = OrderedDict()
        """Samples by digest of the WAV file, least recently used first (an LRU cache)."""
        self._gains = VoiceGains()

    def snapshot(self, voice: Voice, reference: Reference | None = None) -> VoiceSnapshot:
        """Return `voice` with the digest of its recording or else its anchor, and that of `reference`.

        If there is a `reference`, speech clones it instead of the recording or the anchor.
        """
        prompt = self._prompts.all.get(voice.audio_prompt or "")
        needs_anchor = voice.audio_prompt is None and reference is None
        anchor = self._anchors.all.get(voice.voice_id) if needs_anchor else None
        return VoiceSnapshot(
            **asdict(voice),
            recording=None if prompt is None else prompt.digest,
            anchor=None if anchor is None else anchor.digest,
            reference=None if reference is None else reference.clip.digest,
            reference_transcript=None if reference is None else reference.transcript,
        )

    def is_dialogue(self, voice: Voice) -> bool:
        """Return whether the transcript of the voice's recording, or of its reference, has two speakers."""
        prompt = self._prompts.all.get(voice.audio_prompt or "")
        transcript = voice.audio_prompt_transcript or (prompt and prompt.transcript) or ""
        if isinstance(voice, VoiceSnapshot) and voice.reference is not None:
            transcript = voice.reference_transcript or ""
        return len({turn.speaker for turn in turns(transcript, voice.primary_speaker)}) > 1

    async def load(self, cast: Cast) -> CastPrompts:
        """Return the prompts of the voices in `cast`: a voice's recording, else its anchor.

        Raises as `_load`.
        """
        prompts = {
            speaker: prompt
            for speaker, voice in cast.items()
            if (prompt := await self._load(voice)) is not None
        }
        dialogues = frozenset(speaker for speaker in prompts if self.is_dialogue(cast[speaker]))
        return CastPrompts(cast, prompts, dialogues)

    async def _load(self, voice: Voice) -> VoicePrompt | None:
        """Return the recording or the anchor of `voice`, or None if it has neither.

        The voice's own transcript takes precedence over the recording's; a transcript without speaker tags
        gets the voice's primary speaker. Raises PromptNotUsable if the prompt, its file or its transcript is
        missing, or if `voice` is a VoiceSnapshot whose recording or anchor has been replaced.
        """
        if isinstance(voice, VoiceSnapshot) and voice.reference is not None:
            return await self._load_reference(voice, voice.reference)
        if voice.audio_prompt is None:
            return await self._load_anchor(voice)
        prompt = self._prompts.all.get(voice.audio_prompt)
        if prompt is None:
            raise PromptNotUsable(
                f"Voice {voice.voice_id!r} uses audio prompt {voice.audio_prompt!r}, which does not "
                "exist; POST /audio_prompts/upload adds it",
                param="voice_id",
            )
        if isinstance(voice, VoiceSnapshot) and voice.recording not in {None, prompt.digest}:
            raise PromptNotUsable(
                f"The recording of voice {voice.voice_id!r}, audio prompt {prompt.prompt_id!r}, has been "
                "replaced since the request was accepted",
                param="voice_id",
            )
        transcript = tag(voice.audio_prompt_transcript or prompt.transcript or "", voice.primary_speaker)
        if not transcript:
            raise PromptNotUsable(
                f"Audio prompt {prompt.prompt_id!r} of voice {voice.voice_id!r} has no transcript yet, "
                f"which cloning needs; PUT /audio_prompts/{prompt.prompt_id}/transcript sets it, "
                f"POST /audio_prompts/{prompt.prompt_id}/transcribe creates it with Whisper",
                param="voice_id",
            )
        if prompt.needs_review and not voice.audio_prompt_transcript:
            raise PromptNotUsable(f"Voice {voice.voice_id!r}: {prompt.review}", param="voice_id")

        async def read() -> bytes:
            return await self._recordings.read(prompt)

        return await self._prompt(prompt.digest, read, transcript)

    async def _load_reference(self, voice: VoiceSnapshot, digest: str) -> VoicePrompt:
        """Return the recording that the request carried, as a prompt; raises PromptNotUsable."""

        async def read() -> bytes:
            return await self._references.wav(digest)

        transcript = tag(voice.reference_transcript or "", voice.primary_speaker)
        return await self._prompt(digest, read, transcript)

    async def _prompt(
        self, digest: str, read: Callable[[], Awaitable[bytes]], transcript: str
    ) -> VoicePrompt:
        """Return a recording as a prompt, with its gain; `read` returns the WAV file if it is not cached."""
        recording = Recording(await self._samples(digest, read), digest)
        gain_db = await self._gains.gain_db(recording.samples, digest)
        return VoicePrompt((recording,), transcript, gain_db)

    async def _load_anchor(self, voice: Voice) -> VoicePrompt | None:
        anchor = self._anchors.all.get(voice.voice_id)
        digest = None if anchor is None else anchor.digest
        if isinstance(voice, VoiceSnapshot) and voice.anchor not in {None, digest}:
            raise PromptNotUsable(
                f"The anchor of voice {voice.voice_id!r} has been replaced or deleted since the request was "
                "accepted",
                param="voice_id",
            )
        return None if anchor is None else await self._anchors.prompt(anchor)

    async def _samples(self, digest: str, read: Callable[[], Awaitable[bytes]]) -> Samples:
        if (samples := self._cache.get(digest)) is None:
            wav = await read()
            samples = self._cache[digest] = await asyncio.to_thread(_read_only_samples, wav)
            while (
                len(self._cache) > 1 and sum(kept.nbytes for kept in self._cache.values()) > self._cache_size
            ):
                self._cache.popitem(last=False)
        self._cache.move_to_end(digest)
        return samples


def _read_only_samples(wav: bytes) -> Samples:
    samples = audio.samples(wav)
    samples.flags.writeable = False  # cached and shared by concurrent requests
    return samples


def combine(prompts: Sequence[VoicePrompt]) -> VoicePrompt | None:
    """Return one prompt with the audio of all, separated by PAUSE; None if there are none.

    Its gain is the mean of their gains, in decibels, because one segment may contain both speakers.
    """
    if not prompts:
        return None
    parts = list(prompts[0].parts)
    for prompt in prompts[1:]:
        parts += [PAUSE, *prompt.parts]
    gain_db = sum(prompt.gain_db for prompt in prompts) / len(prompts)
    return VoicePrompt(tuple(parts), " ".join(prompt.transcript for prompt in prompts), gain_db)


def retag(speaker: str, prompt: VoicePrompt) -> VoicePrompt:
    """Return `prompt` with all its text given to `speaker`."""
    text = " ".join(TAG.sub(" ", prompt.transcript).split())
    return replace(prompt, transcript=f"[{speaker}] {text}")
