"""Previews of voices: a short text spoken by each voice, generated on demand and kept in memory."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from dia_server.services.speech.request import PreparedRequest, SpeechRequest
from dia_server.services.speech.service import SpeechService
from dia_server.units import MIB

TEXT = "Hello, it is good to meet you. This is how I sound when I read a few words to you."
"""Text of every preview, about 5 s of speech; the voice's primary speaker says it."""
CACHE_SIZE = 32 * MIB
"""Maximum bytes of previews kept in memory: about 70 voices."""


@dataclass(frozen=True, slots=True)
class _Key:
    """Everything that determines the audio of a preview, so that a changed voice gets a new preview."""

    voice: str
    text: str
    seed: int
    prompt: tuple[str, str] | None
    """Identifier and transcript of the voice prompt."""


class VoicePreviews:
    def __init__(self, speech: SpeechService, *, cache_size: int = CACHE_SIZE) -> None:
        self._speech = speech
        self._cache_size = cache_size
        self._cache: OrderedDict[_Key, bytes] = OrderedDict()
        """WAV files, least recently used first."""
        self._locks: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()
        """Held while a preview is generated, so that concurrent requests generate it once."""

    async def get(self, voice_id: str, client: str, before: Callable[[], Awaitable[object]]) -> bytes:
        """Return the preview of a voice as a WAV file.

        `before` is awaited before the preview or the voice's anchor is generated, and not if the preview is
        in memory; it may raise. Raises as `SpeechService.speak`.
        """
        request = SpeechRequest(text=TEXT, voice_id=voice_id)
        prepared = await self._speech.prepare(request, make_anchors=False)
        if lacked_anchor := not prepared.ready:
            await before()
            prepared = await self._speech.prepare(request)
        key = _key(prepared)
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if key not in self._cache:
                if not lacked_anchor:
                    await before()
                self._keep(key, (await self._speech.speak_prepared(prepared, client)).audio)
            self._cache.move_to_end(key)
            return self._cache[key]

    def _keep(self, key: _Key, audio: bytes) -> None:
        self._cache[key] = audio
        while len(self._cache) > 1 and sum(map(len, self._cache.values())) > self._cache_size:
            self._cache.popitem(last=False)


def _key(prepared: PreparedRequest) -> _Key:
    one = prepared.utterance
    prompt = prepared.segment_voices(prepared.plan.utterances[0]).prompt  # all segments have one voice
    return _Key(one.voice, one.text, one.seed, None if prompt is None else (prompt.key, prompt.transcript))
