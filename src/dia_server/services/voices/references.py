"""References: recordings that a request carries, to be spoken in their voice; they are never listed.

A reference replaces the recording of the request's first voice. It is decoded as an upload is, once for any
number of requests that send the same bytes.
"""

import asyncio
import base64
import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from dia_server.errors import Invalid, PayloadTooLarge, UnusableAudio, WhisperNotAvailable
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.reference_files import ReferenceFiles
from dia_server.services.voices.shared_tasks import SharedTasks
from dia_server.services.voices.transcription import LANGUAGE, Transcription
from dia_server.services.voices.whisper import Whisper
from dia_server.text.speakers import clean_transcript
from dia_server.units import MIB

MAX_REFERENCE = 10 * MIB
"""Maximum bytes of a reference, before it is decoded to WAV."""
CACHE_SIZE = 64 * MIB
"""Maximum bytes of WAV files kept in memory for later requests: 12 minutes of audio."""
MAX_TRANSCRIPTS = 256
"""Maximum transcripts by Whisper kept in memory for later requests."""
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
"""Beginning of a URL."""
DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Clip:
    """A decoded recording."""

    digest: str
    """SHA-256 of `wav`."""
    wav: bytes = field(repr=False)
    """WAV file in the format of audio prompts."""


@dataclass(frozen=True, slots=True)
class Reference:
    clip: Clip
    transcript: str = field(repr=False)


class References:
    def __init__(
        self,
        prompts: PromptService,
        files: ReferenceFiles,
        whisper: Whisper,
        *,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        self._prompts = prompts
        self._cache_size = cache_size
        self._files = files
        self._whisper = whisper
        self._recent: OrderedDict[str, Clip] = OrderedDict()
        """Clips by SHA-256 of the bytes that clients sent, least recently used first (an LRU cache)."""
        self._clips: WeakValueDictionary[str, Clip] = WeakValueDictionary()
        """All clips in memory, by their own SHA-256."""
        self._transcripts: OrderedDict[str, Transcription] = OrderedDict()
        """Transcripts by the name of Whisper's model and the SHA-256 of the WAV file."""
        self._decoding: SharedTasks[Clip] = SharedTasks()
        self._transcribing: SharedTasks[Transcription] = SharedTasks()

    async def resolve(self, audio: str | None, text: str | None) -> Reference | None:
        """Return the reference of a request: `audio` as base64 or data URL, `text` said in it; or None.

        If `text` is blank, Whisper transcribes the recording. Raises PayloadTooLarge, UnusableAudio,
        NativeUnavailable or StorageUnavailable; Invalid, among others if no transcript can be trusted.
        """
        said = (text or "").strip()
        if audio is None:
            if said:
                raise Invalid("ref_text: it needs ref_audio, the recording of these words", param="ref_text")
            return None
        transcript = clean_transcript(said)
        if said and not transcript:
            raise Invalid("ref_text contains no spoken words", param="ref_text")
        clip = await self._clip(audio)
        return Reference(clip, transcript or await self._transcript(clip))

    async def wav(self, digest: str) -> bytes:
        """Return the WAV file of a reference in use, or of a stored one.

        Raises PromptNotUsable or StorageUnavailable.
        """
        if clip := self._clips.get(digest):
            return clip.wav
        return await self._files.read(digest)

    async def close(self) -> None:
        """Wait until all work has ended. Close Whisper and the decoder first, so that it fails at once."""
        await self._decoding.close()
        await self._transcribing.close()

    async def _clip(self, audio: str) -> Clip:
        key, recording = await asyncio.to_thread(_read, audio)
        if clip := self._recent.get(key):
            self._recent.move_to_end(key)
            return clip
        return await self._decoding.run(key, lambda: self._decode(key, recording))

    async def _decode(self, key: str, recording: bytes) -> Clip:
        wav = await self._prompts.convert(recording)
        digest = hashlib.sha256(wav).hexdigest()
        clip = self._clips.setdefault(digest, Clip(digest, wav))
        self._recent[key] = clip
        while (
            len(self._recent) > 1 and sum(len(kept.wav) for kept in self._recent.values()) > self._cache_size
        ):
            self._recent.popitem(last=False)
        return clip

    async def _transcript(self, clip: Clip) -> str:
        """Return Whisper's transcript of `clip`; raises Invalid if there is none that can be trusted."""
        key = f"{self._whisper.model_size} {clip.digest}"
        if heard := self._transcripts.get(key):
            self._transcripts.move_to_end(key)
        else:
            heard = await self._transcribing.run(key, lambda: self._transcribe(key, clip))
        text = clean_transcript(heard.text)
        if not text:
            raise _words_wanted("Whisper finds no words in it")
        if heard.needs_review:
            language = heard.confidence.language
            spoken = "" if language in {None, LANGUAGE} else f"; its language seems to be {language!r}"
            raise _words_wanted(f"Whisper is not sure of them{spoken}")
        return text

    async def _transcribe(self, key: str, clip: Clip) -> Transcription:
        try:
            heard = await self._whisper.transcribe(clip.wav)
        except (WhisperNotAvailable, UnusableAudio) as error:
            raise _words_wanted(str(error)) from error
        self._transcripts[key] = heard
        while len(self._transcripts) > MAX_TRANSCRIPTS:
            self._transcripts.popitem(last=False)
        return heard


def _words_wanted(cause: str) -> Invalid:
    return Invalid(f"ref_text: send the words that are said in ref_audio: {cause}", param="ref_text")


def _read(audio: str) -> tuple[str, bytes]:
    """Decode base64 or a data URL; return the SHA-256 of the bytes, and the bytes.

    Raises Invalid, or PayloadTooLarge.
    """
    if data_url := DATA_URL.match(audio):
        audio = audio[data_url.end() :]
    elif SCHEME.match(audio):
        raise Invalid(
            "ref_audio: a URL is not accepted, because the server fetches nothing; send the recording itself "
            "as base64, or as a data URL with base64",
            param="ref_audio",
        )
    audio = "".join(audio.split())
    if len(audio) // 4 * 3 > MAX_REFERENCE + 3:
        raise _too_large()
    try:
        recording = base64.b64decode(audio, validate=True)
    except ValueError as error:
        raise Invalid(f"ref_audio: not valid base64: {error}", param="ref_audio") from None
    if not recording:
        raise Invalid("ref_audio: empty", param="ref_audio")
    if len(recording) > MAX_REFERENCE:
        raise _too_large()
    return hashlib.sha256(recording).hexdigest(), recording


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(
        f"ref_audio: too large; the limit is {MAX_REFERENCE:,} bytes", param="ref_audio", limit=MAX_REFERENCE
    )
