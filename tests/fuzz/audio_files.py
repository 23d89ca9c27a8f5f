"""Generates damaged audio files from a seed."""

import random
import struct
from collections.abc import Iterator

from dia_server.audio.encode import encode
from tests.bombs import mp3_with_cover
from tests.recordings import RATE, container, sound, wav_file


def whole_files() -> list[bytes]:
    """Return a 0.6 s recording in each supported container and codec."""
    samples = sound(0.6)
    own = [encode(samples, RATE, name) for name in ("mp3", "opus", "aac", "flac")]
    others = [("ipod", "aac"), ("ipod", "alac"), ("webm", "libopus"), ("aiff", "pcm_s16be")]
    return [wav_file(0.6), mp3_with_cover(8), *own, *(container(samples, *kind) for kind in others)]


def audio_files(seed: int) -> Iterator[bytes]:
    """Yield an endless sequence of files, the same for the same seed."""
    random_ = random.Random(seed)
    whole = whole_files()
    while True:
        file = bytearray(random_.choice(whole))
        for _ in range(random_.choice((1, 1, 2, 4, 16))):
            _damage(file, random_, whole)
        yield bytes(file)


def _damage(file: bytearray, random_: random.Random, whole: list[bytes]) -> None:
    # half of the damage is in the first 200 bytes, where the headers are
    at = random_.randrange(min(len(file), random_.choice((200, len(file)))) or 1)
    size = random_.choice((1, 2, 4, 8, 64, 1000))
    match random_.randrange(7):
        case 0:
            file[at : at + 1] = bytes([random_.randrange(256)])
        case 1:
            file[at : at + size] = random_.randbytes(size)
        case 2:
            file[at : at + 4] = struct.pack("<I", random_.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFF)))
        case 3:
            del file[at : at + size]
        case 4:
            file[at:at] = file[at : at + size]
        case 5:
            other = random_.choice(whole)
            start = random_.randrange(len(other))
            file[at : at + size] = other[start : start + size]
        case 6:
            del file[len(file) - random_.randrange(len(file) // 2 + 1) :]
    if not file:
        file += b"\0"
