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

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
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


class Espeak:
    """espeak-ng synthesizer; a `NativeWorker` creates it and calls it in a child process."""

    def __init__(self) -> None:
        """Speak a test word; raises AudioProcessingError if the library is missing, fails or is silent."""
        try:
            _, pcm = self.speak("one", Profile("f3", 50, 170), 0)
        except OSError as error:
            raise AudioProcessingError(f"espeak-ng cannot be loaded: {error}") from None
        if not any(pcm):
            raise AudioProcessingError("espeak-ng is silent")

    def speak(self, text: str, profile: Profile, seed: int) -> tuple[int, bytes]:
        """Synthesize `text`; return the sample rate in Hz and mono 16-bit PCM.

        The PCM is empty if nothing can be pronounced. Equal arguments give equal audio, because each call
        reloads the library (0.8 ms), which cannot reset its oscillator and noise state otherwise.
        """
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            return _speak(library, text, profile, seed)
        finally:
            library.espeak_Terminate()
            _unload(library._handle)


def _speak(library: ctypes.CDLL, text: str, profile: Profile, seed: int) -> tuple[int, bytes]:
    pcm = bytearray()

    def collect(wave: "ctypes._Pointer[ctypes.c_short]", count: int, _: int | None) -> int:
        if wave and count > 0:
            pcm.extend(ctypes.string_at(wave, 2 * count))
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
    return sample_rate, bytes(pcm)


def _call(function: Callable[..., int], *arguments: object) -> None:
    if (status := function(*arguments)) != 0:
        raise AudioProcessingError(f"espeak-ng failed with status {status}")
