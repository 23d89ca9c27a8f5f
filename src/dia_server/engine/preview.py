"""The preview engine's model: espeak-ng behind the frame that Dia runs in.

Real, intelligible speech on any machine, always labelled as a preview: it is not Dia and does not
clone voices. Each voice is a pair of people, one for each speaker tag. One step says one sentence of
one utterance: sentences of others would only delay what is made already.
"""

import re
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

import av
import numpy as np

from dia_server.engine.espeak import Profile, speak
from dia_server.engine.types import SAMPLE_RATE, Chunk, Model, Samples, Utterance

FRAME = 512
"""Samples of one codec frame of Dia: tokens are counted as the model would."""
PAUSE = np.zeros(SAMPLE_RATE * 3 // 10, np.float32)
"""Between two sentences or turns, and in place of a clause without anything to pronounce."""
LONGEST = 200
"""Characters said in one step, so that the engine thread can turn to others."""

VOICES = {
    "aria": (Profile("f3", 50, 170), Profile("m3", 45, 160)),
    "atlas": (Profile("m2", 35, 150, 35), Profile("f4", 50, 165)),
    "luna": (Profile("m5", 55, 165), Profile("f5", 65, 165, 80)),
    "kai": (Profile("m7", 60, 180, 65), Profile("f2", 55, 170)),
    "zara": (Profile("m6", 30, 155), Profile("f1", 20, 150, 40)),
    "nova": (Profile("f2", 80, 180, 70), Profile("m4", 55, 170)),
}
"""Voice id to the people that say [S1] and [S2]."""
SECOND = {"luna", "zara"}
"""Voices whose own person is the one that says [S2]."""

SPEAKER = re.compile(r"\[S([12])\]")
NONVERBAL = re.compile(
    r"\((?:applause|beep|burps|chuckles?|claps|clears throat|coughs?|exhales|gasps?|groans|humming|inhales"
    r"|laughs|mumbles|screams|sighs?|singing|sings|sneezes|sniffs|whistles)\)"
)
"""Sounds that Dia makes and espeak-ng would read out."""
SENTENCE_END = re.compile(r"(?<=[.!?;:…])\s+|\n+")


def load(slots: int) -> Callable[[Callable[[float], None]], Model]:
    return lambda _: Preview(slots)


class Preview:
    notes = ()

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._running: dict[int, _Script] = {}

    def admit(self, slot: int, utterance: Utterance) -> None:
        self._running[slot] = _Script(utterance)

    def step(self) -> dict[int, Chunk | Exception]:
        """Let one that has said nothing yet speak, or else whoever has been silent longest."""
        slot = min(self._running, key=lambda slot: self._running[slot].said > 0)  # the first of equals
        script = self._running[slot] = self._running.pop(slot)  # goes to the end
        return {slot: self._advance(script)}

    def release(self, slot: int) -> None:
        self._running.pop(slot, None)

    def reset(self) -> None:
        self._running.clear()

    def close(self) -> None:
        self._running.clear()

    def _advance(self, script: "_Script") -> Chunk:
        profile, clause = script.clauses.popleft()
        samples = resample(*speak(clause, profile, script.seed))
        if script.clauses or not samples.any():
            samples = np.concatenate([samples, PAUSE])
        samples = samples[: script.tokens_left * FRAME]
        tokens = -(-len(samples) // FRAME)
        script.tokens_left -= tokens
        script.said += len(clause)
        done = not script.clauses or not script.tokens_left
        progress = 1.0 if done else script.said / script.length
        return Chunk(samples, tokens=tokens, progress=progress, done=done)


class _Script:
    """What of an utterance is still to be said."""

    def __init__(self, utterance: Utterance) -> None:
        self.clauses = deque(clauses(utterance.text, utterance.voice))
        self.length = sum(len(clause) for _, clause in self.clauses)
        self.said = 0
        self.seed = utterance.seed
        self.tokens_left = sys.maxsize if utterance.max_tokens is None else utterance.max_tokens


def clauses(text: str, voice: str) -> list[tuple[Profile, str]]:
    """Split `text` into what is said in one go, each with who says it; at least one."""
    people = _people(voice)
    _, *parts = SPEAKER.split(text)
    found = []
    for number, said in zip(parts[::2], parts[1::2], strict=True):
        person = people[int(number) - 1]
        heard = NONVERBAL.sub(" ", said)
        found += [(person, piece) for piece in chain.from_iterable(map(_pieces, SENTENCE_END.split(heard)))]
    return found or [(people[0], "")]


def _pieces(clause: str) -> Iterator[str]:
    """Cut a sentence that is too long for one step: after a comma, else between words, else anywhere."""
    clause = clause.strip()
    while len(clause) > LONGEST:
        cut = clause.rfind(", ", 0, LONGEST) + 1 or clause.rfind(" ", 1, LONGEST)
        cut = cut if cut > 0 else LONGEST
        yield clause[:cut]
        clause = clause[cut:].strip()
    if clause:
        yield clause


def _people(voice: str) -> tuple[Profile, Profile]:
    """Who says [S1] and [S2]; "aria+luna" are the two voices' own people."""
    first, _, second = voice.partition("+")
    if second:
        return _main(first), _main(second)
    return VOICES.get(voice) or _strangers(voice)


def _main(voice: str) -> Profile:
    return _people(voice)[voice in SECOND]


def _strangers(voice: str) -> tuple[Profile, Profile]:
    """Two people for a voice that is not built in, always the same for the same id."""
    key = zlib.crc32(voice.encode())
    woman = Profile(f"f{1 + key % 5}", 40 + key // 5 % 40, 150 + key // 200 % 30)
    man = Profile(f"m{1 + key // 7 % 8}", 30 + key // 56 % 35, 150 + key // 1960 % 30)
    return (woman, man) if key % 2 else (man, woman)


def resample(samples: Samples, rate: int) -> Samples:
    """Bring mono audio from `rate` to 44.1 kHz."""
    if not len(samples):
        return samples
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = rate
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])
