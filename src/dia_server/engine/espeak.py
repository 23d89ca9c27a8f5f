"""Calls espeak-ng, a formant synthesizer, through the shared library of its wheel.

The library has global state, is not thread-safe, and can be crashed by a text of five characters. Therefore
it runs in a child process (`native/`). This module imports little, so that the child starts quickly.
"""

import _ctypes
import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import espeakng_loader

from dia_server.errors import AudioProcessingError

# constants of espeak-ng's speak_lib.h
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_EVENT_END_OF_LIST, _EVENT_WORD = 0, 1


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_unload: Callable[[int], None] = getattr(_ctypes, "dlclose", None) or _ctypes.FreeLibrary  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Profile:
    """Parameters of espeak-ng for one speaker."""

    variant: str
    """espeak-ng voice variant, such as "f3"."""
    pitch: int
    """Base pitch, 0 to 100; 50 is the variant's default."""
    rate: int
    """espeak-ng's rate parameter, nominally words per minute; sentences come out faster: 140 gives about 184
    words per minute."""
    range: int = 50
    """Pitch range, 0 (monotone) to 100."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """Speech of one text."""

    sample_rate: int
    """Hz."""
    pcm: bytes
    """Mono, 16 bits; empty if nothing can be pronounced."""
    words: list[tuple[int, int]]
    """Index of a word's first character in the text, and of its first sample in `pcm`, in order. Words that
    espeak-ng joins, such as "of the", have one entry; a number in digits may have several."""


class Espeak:
    """espeak-ng synthesizer; a `NativeWorker` creates it and calls it in a child process."""

    def __init__(self) -> None:
        """Speak a test word; raises AudioProcessingError if the library is missing, fails or is silent."""
        try:
            spoken = self.speak("one", Profile("f3", 50, 170), 0)
        except OSError as error:
            raise AudioProcessingError(f"espeak-ng cannot be loaded: {error}") from None
        if not any(spoken.pcm):
            raise AudioProcessingError("espeak-ng is silent")

    def speak(self, text: str, profile: Profile, seed: int) -> Spoken:
        """Synthesize `text`.

        Equal arguments give equal audio, because each call reloads the library (0.8 ms), which cannot reset
        its oscillator and noise state otherwise.
        """
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            return _speak(library, text, profile, seed)
        finally:
            library.espeak_Terminate()
            _unload(library._handle)


def _speak(library: ctypes.CDLL, text: str, profile: Profile, seed: int) -> Spoken:
    pcm = bytearray()
    words: list[tuple[int, int]] = []

    def collect(
        wave: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[_Event]"
    ) -> int:
        if wave and count > 0:
            pcm.extend(ctypes.string_at(wave, 2 * count))
        index = 0
        while (event := events[index]).type != _EVENT_END_OF_LIST:
            if event.type == _EVENT_WORD:
                words.append((event.text_position - 1, event.sample))
            index += 1
        return 0

    data = espeakng_loader.get_data_path().encode()
    sample_rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, _INITIALIZE_DONT_EXIT)
    if sample_rate <= 0:
        raise AudioProcessingError(f"espeak-ng could not be initialized from {data.decode()}")
    callback = _Callback(collect)  # the variable keeps the callback alive: the library holds only its address
    library.espeak_SetSynthCallback(callback)
    library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
    _call(library.espeak_SetVoiceByName, f"en-us+{profile.variant}".encode())
    for parameter, value in ((_RATE, profile.rate), (_PITCH, profile.pitch), (_RANGE, profile.range)):
        _call(library.espeak_SetParameter, parameter, value, 0)
    encoded = text.encode()
    size = ctypes.c_size_t(len(encoded) + 1)
    _call(library.espeak_Synth, encoded, size, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
    _call(library.espeak_Synchronize)
    return Spoken(sample_rate, bytes(pcm), words)


def _call(function: Callable[..., int], *arguments: object) -> None:
    if (status := function(*arguments)) != 0:
        raise AudioProcessingError(f"espeak-ng failed with status {status}")
