import asyncio

import numpy as np
import pytest

from dia_server.audio import wav
from dia_server.audio.encode import MEDIA_TYPES, AudioFormat, encode
from dia_server.audio.loudness import CEILING, amplify
from dia_server.audio.tempo import change_tempo
from dia_server.services.speech.encoding import EncoderThreads
from dia_server.units import SAMPLE_RATE
from tests.audio.signals import tone


@pytest.mark.parametrize("audio_format", MEDIA_TYPES)
@pytest.mark.parametrize("speed", [1.0, 0.5])
async def test_a_whole_file_comes_at_its_end(audio_format: AudioFormat, speed: float) -> None:
    samples = tone(1)
    file = EncoderThreads().open(audio_format, speed, whole=True)

    pushed = [await file.push(part) for part in np.split(samples, [7, 9000, 30_000])]

    assert pushed == [b""] * 4
    assert await file.finish() == encode(change_tempo(samples, SAMPLE_RATE, speed), SAMPLE_RATE, audio_format)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("speed", [1.0, 0.5])
async def test_the_gain_is_the_same_however_the_samples_are_cut(*, speed: float, whole: bool) -> None:
    samples = tone(1)
    file = EncoderThreads().open("wav", speed, whole=whole)

    parts = [await file.push(part, 12.0) for part in np.split(samples, [7, 9000, 30_000])]
    pcm = b"".join([*parts, await file.finish()])[wav.HEADER_LENGTH :]

    assert pcm == wav.pcm16(amplify(change_tempo(samples, SAMPLE_RATE, speed), 12.0))
    assert 0.8 < np.abs(wav.samples(pcm)).max() <= CEILING


async def test_a_long_file_delays_others_by_one_part_at_most() -> None:
    threads = EncoderThreads()
    ended: list[str] = []

    async def encode_parts(name: str, parts: int) -> None:
        file = threads.open("mp3", 0.25, whole=True)
        for _ in range(parts):
            await file.push(tone(0.25))
        await file.finish()
        ended.append(name)

    long = asyncio.create_task(encode_parts("long", 40))
    await asyncio.sleep(0)
    await asyncio.gather(long, encode_parts("short", 2))

    assert ended == ["short", "long"]


async def test_a_file_is_opened_by_the_thread_that_encodes_it() -> None:
    """Opening a codec and a filter takes milliseconds, which would block the event loop."""
    file = EncoderThreads().open("vorbis", 1.0)  # type: ignore[arg-type]

    with pytest.raises(KeyError, match="vorbis"):
        await file.push(tone(0.1))


@pytest.mark.parametrize("speed", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("cuts", [[22_050], [100, 22_050, 22_051]])
async def test_each_part_of_a_file_has_its_own_gain(speed: float, cuts: list[int]) -> None:
    samples = np.concatenate([tone(0.5), np.zeros(22_050, np.float32), tone(0.5)])
    file = EncoderThreads().open("wav", speed)
    changed = change_tempo(samples, SAMPLE_RATE, speed)
    middle = len(changed) // 2

    parts = [await file.push(part, -6.0) for part in np.split(samples[:33_075], cuts)]
    parts += [await file.push(part, None) for part in np.split(samples[33_075:], cuts)]
    pcm = b"".join([*parts, await file.finish()])[wav.HEADER_LENGTH :]

    assert pcm == wav.pcm16(np.concatenate([amplify(changed[:middle], -6.0), changed[middle:]]))
