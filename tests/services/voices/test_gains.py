import asyncio

import numpy as np

from dia_server.audio.loudness import gain_db
from dia_server.engine.types import GeneratedAudio, Samples, VoicePrompt
from dia_server.services.voices.gains import VoiceGains
from dia_server.services.voices.voice_prompts import combine
from dia_server.units import SAMPLE_RATE
from tests.recordings import sound

LOUD, QUIET = sound(2.0, 0.9), sound(2.0, 0.2)


def prompt(gain: float) -> VoicePrompt:
    return VoicePrompt((GeneratedAudio(np.zeros((3, 9), np.int16)),), "[S1] I speak.", gain)


def gain_of(samples: Samples) -> float:
    return gain_db(samples, SAMPLE_RATE)


async def test_audio_is_measured_once() -> None:
    gains = VoiceGains()

    assert await gains.gain_db(LOUD, "a") == gain_of(LOUD)
    assert await gains.gain_db(QUIET, "a") == gain_of(LOUD)  # only the digest is looked at
    assert await gains.gain_db(QUIET, "b") == gain_of(QUIET) != gain_of(LOUD)


async def test_the_least_recently_used_gain_is_dropped() -> None:
    gains = VoiceGains(cache_size=2)
    await gains.gain_db(LOUD, "a")
    await gains.gain_db(LOUD, "b")
    await gains.gain_db(LOUD, "a")
    await gains.gain_db(LOUD, "c")

    assert await gains.gain_db(QUIET, "a") == gain_of(LOUD)
    assert await gains.gain_db(QUIET, "b") == gain_of(QUIET)


async def test_concurrent_requests_get_the_same_gain() -> None:
    gains = VoiceGains()

    assert set(await asyncio.gather(*[gains.gain_db(LOUD, "a") for _ in range(8)])) == {gain_of(LOUD)}


def test_two_voices_are_spoken_with_the_mean_of_their_gains() -> None:
    combined = combine([prompt(4.0), prompt(-2.0)])

    assert combined is not None
    assert combined.gain_db == 1.0
    assert combined.followed_by(np.zeros((2, 9), np.int16), "[S1] More.").gain_db == 1.0
