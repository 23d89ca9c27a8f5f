"""Loads the audio prompts of voices for the engine: samples and transcript."""

import asyncio
from collections import OrderedDict
from dataclasses import asdict, replace

import numpy as np

from dia_server.audio import prompt as audio
from dia_server.engine.types import Recording, Samples, VoicePrompt
from dia_server.errors import PromptNotUsable
from dia_server.services.voices.gains import VoiceGains
from dia_server.services.voices.prompt_folder import PromptFolder
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.service import Voice, VoiceSnapshot
from dia_server.text.speakers import TAG, Speaker, tag
from dia_server.units import MIB, SAMPLE_RATE

CACHE_SIZE = 128 * MIB
"""Maximum bytes of samples cached in memory: 12 minutes of audio."""
PAUSE = Recording(np.zeros(SAMPLE_RATE // 4, np.float32), digest="pause")
"""Silence between two combined prompts: 0.25 s of samples."""


class VoicePrompts:
    """Caches recently used samples, so that speech rarely waits for the disk."""

    def __init__(self, prompts: PromptService, folder: PromptFolder, *, cache_size: int = CACHE_SIZE) -> None:
        self._prompts = prompts
        self._folder = folder
        self._cache_size = cache_size
        self._cache: OrderedDict[str, Samples] = OrderedDict()
        """Samples by digest of the WAV file, least recently used first (an LRU cache)."""
        self._gains = VoiceGains()

    def snapshot(self, voice: Voice, second: Voice | None = None) -> VoiceSnapshot:
        """Return `voice`, and `second` for the speaker [S2], with the digests of their current recordings."""
        prompt = self._prompts.all.get(voice.audio_prompt or "")
        return VoiceSnapshot(
            **asdict(voice),
            recording=None if prompt is None else prompt.digest,
            second=None if second is None else self.snapshot(second),
        )

    async def load(self, voice: Voice) -> VoicePrompt | None:
        """Return the audio prompt of `voice`, combined with that of any `second` voice; raises as `_load`."""
        prompt = await self._load(voice)
        if isinstance(voice, VoiceSnapshot) and voice.second is not None:
            return combine_prompts(prompt, await self._load(voice.second))
        return prompt

    async def _load(self, voice: Voice) -> VoicePrompt | None:
        """Return the audio prompt of `voice` alone, or None if it has none.

        The voice's own transcript takes precedence over the prompt's; a transcript without speaker tags
        gets the voice's primary speaker. Raises PromptNotUsable if the prompt, its file or its transcript is
        missing, or if `voice` is a VoiceSnapshot whose recording has been replaced.
        """
        if voice.audio_prompt is None:
            return None
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
        recording = Recording(await self._samples(prompt.prompt_id, prompt.digest), prompt.digest)
        gain_db = await self._gains.gain_db(recording.samples, recording.digest)
        return VoicePrompt((recording,), transcript, gain_db)

    async def _samples(self, prompt_id: str, digest: str) -> Samples:
        if (samples := self._cache.get(digest)) is None:
            samples = self._cache[digest] = await asyncio.to_thread(self._read, prompt_id, digest)
            while (
                len(self._cache) > 1 and sum(kept.nbytes for kept in self._cache.values()) > self._cache_size
            ):
                self._cache.popitem(last=False)
        self._cache.move_to_end(digest)
        return samples

    def _read(self, prompt_id: str, digest: str) -> Samples:
        samples = audio.samples(self._folder.read_stored(prompt_id, digest))
        samples.flags.writeable = False  # cached and shared by concurrent requests
        return samples


def combine_prompts(first: VoicePrompt | None, second: VoicePrompt | None) -> VoicePrompt | None:
    """Return one prompt with `first` as speaker [S1] and `second` as [S2]; None if both are None.

    Its gain is the mean of both gains, in decibels, because one segment may contain both speakers.
    """
    if first is None or second is None:
        return _retag("S1", first) or _retag("S2", second)
    return VoicePrompt(
        (*first.parts, PAUSE, *second.parts),
        f"[S1] {_untagged(first)} [S2] {_untagged(second)}",
        (first.gain_db + second.gain_db) / 2,
    )


def _retag(speaker: Speaker, prompt: VoicePrompt | None) -> VoicePrompt | None:
    return prompt and replace(prompt, transcript=f"[{speaker}] {_untagged(prompt)}")


def _untagged(prompt: VoicePrompt) -> str:
    return " ".join(TAG.sub(" ", prompt.transcript).split())
