"""espeak-ng, a formant synthesizer, called from its wheel's shared library.

The library is one per process and not thread-safe: an `Espeak` is made, used and closed by one thread.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import espeakng_loader
import numpy as np

from dia_server.engine.types import Samples
from dia_server.errors import AudioProcessingError

# speak_lib.h
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_RATE, _PITCH, _RANGE = 1, 3, 4

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Profile:
    """How one person sounds."""

    variant: str
    """espeak-ng's voice variant, "f3" for example."""
    pitch: int
    """0 to 100, 50 being the variant's own."""
    rate: int
    """Words a minute."""
    range: int = 50
    """How much the pitch moves, 0 (monotone) to 100."""


class Espeak:
    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate: int = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, data, _INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise OSError(f"espeak-ng could not be initialized from {data.decode()}")
        self._pieces: list[Samples] = []
        self._callback = _Callback(self._collect)  # kept: the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)
        self._profile: Profile | None = None

    def speak(self, text: str, profile: Profile) -> Samples:
        """Return `text` as mono audio at `sample_rate`; empty where there is nothing to pronounce."""
        self._set(profile)
        self._pieces = []
        encoded = text.encode()
        self._call(
            self._library.espeak_Synth,
            encoded,
            ctypes.c_size_t(len(encoded) + 1),
            0,
            _POS_CHARACTER,
            0,
            _CHARS_UTF8,
            None,
            None,
        )
        self._call(self._library.espeak_Synchronize)
        return np.concatenate(self._pieces) if self._pieces else np.empty(0, np.float32)

    def close(self) -> None:
        self._library.espeak_Terminate()

    def _set(self, profile: Profile) -> None:
        if profile == self._profile:
            return
        self._call(self._library.espeak_SetVoiceByName, f"en-us+{profile.variant}".encode())
        for parameter, value in ((_RATE, profile.rate), (_PITCH, profile.pitch), (_RANGE, profile.range)):
            self._call(self._library.espeak_SetParameter, parameter, value, 0)
        self._profile = profile

    def _collect(self, wave: "ctypes._Pointer[ctypes.c_short]", count: int, _: int | None) -> int:
        if wave and count > 0:
            pcm = np.ctypeslib.as_array(wave, (count,))
            self._pieces.append(pcm.astype(np.float32) / np.float32(32768))
        return 0

    def _call(self, function: Callable[..., int], *arguments: object) -> None:
        if (status := function(*arguments)) != 0:
            raise AudioProcessingError(f"espeak-ng failed with status {status}")
