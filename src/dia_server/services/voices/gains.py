"""Gains that make all voices equally loud, measured once from each voice's audio."""

import asyncio
from collections import OrderedDict

from dia_server.audio.loudness import gain_db
from dia_server.engine.types import Samples
from dia_server.units import SAMPLE_RATE

CACHE_SIZE = 4096
"""Maximum gains cached in memory."""


class VoiceGains:
    """Measures gains on a thread, in about 2 ms for each second of audio, and caches them."""

    def __init__(self, *, cache_size: int = CACHE_SIZE) -> None:
        self._cache_size = cache_size
        self._cache: OrderedDict[str, float] = OrderedDict()
        """Gains in decibels by digest of the audio, least recently used first (an LRU cache)."""

    async def gain_db(self, samples: Samples, digest: str) -> float:
        """Return the gain of a voice that sounds like `samples`, in decibels; 0 if they are silent.

        Equal digests mean equal samples. Raises AudioProcessingError.
        """
        if (gain := self._cache.get(digest)) is None:
            gain = self._cache[digest] = await asyncio.to_thread(gain_db, samples, SAMPLE_RATE)
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        self._cache.move_to_end(digest)
        return gain
