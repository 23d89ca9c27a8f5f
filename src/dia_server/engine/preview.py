"""The preview engine's model: espeak-ng behind the same `Model` protocol as Dia.

It makes intelligible speech on any machine, is always labelled as a preview, and does not clone voices. Each
voice is a profile of espeak-ng. A step gives clauses to child processes, and
waits until one of the clauses is synthesized. Clients take turns, and so do the requests of one client.
"""

import re
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import espeakng_loader
import numpy as np

from dia_server.engine.espeak import Espeak, Profile, Spoken
from dia_server.engine.turns import Turns
from dia_server.engine.types import Chunk, Model, Samples, Utterance, WordStart
from dia_server.errors import AudioProcessingError, ModelNotLoaded, ServerError, UnspeakableText
from dia_server.native import NativeFailure, NativePool, NativeWorker
from dia_server.units import HOP, MIB, SAMPLE_RATE
from dia_server.vocabulary import SOUND

PAUSE_SAMPLES = np.zeros(SAMPLE_RATE * 3 // 10, np.float32)
"""Silence of 0.3 s, appended to each clause but the last, and to the last if it is silent."""
MAX_CLAUSE = 200
"""Maximum characters per clause, which bounds how long other utterances wait for a child process."""
DEADLINE_S = 10.0
"""Maximum seconds to synthesize one clause, which usually takes 10 ms."""
MEMORY = 128 * MIB
"""Maximum bytes by which calls may enlarge a child's address space; espeak-ng leaks 2 to 50 kB per clause."""
POLL_S = 0.005
"""Maximum seconds of a step while a child process is idle; utterances are only admitted between steps."""
WORKERS = 2
"""Number of child processes: while one restarts after a crash, the other continues."""

VOICES = {
    "aria": Profile("f3", 40, 135),
    "atlas": Profile("m2", 35, 135, 35),
    "luna": Profile("f5", 52, 140, 80),
    "kai": Profile("m1", 60, 140, 60),
    "zara": Profile("steph", 30, 135, 40),
    "nova": Profile("f3", 75, 135, 60),
}
"""Profile of each built-in voice. `python -m benchmarks.hearing` measures how well each is understood: rates
above 140, f1, f4, and high pitches of the male variants are understood badly."""
FEMALE, MALE = ("f2", "f3", "f5", "steph"), ("m1", "m2", "m3", "m5", "m6", "m7")
"""Variants of voices that are not built in."""

SPEAKER = re.compile(r"\[S([12])\]")
SENTENCE_END = re.compile(r"(?<=[.!?;:…])\s+|\n+")


def load(slots: int) -> Callable[[Callable[[float], None]], Model]:
    return lambda _: _loaded(slots)


def _loaded(slots: int) -> Model:
    if not Path(library := espeakng_loader.get_library_path()).exists():
        raise ModelNotLoaded(f"espeak-ng is missing: {library}. Install espeakng-loader anew.")
    return Preview(slots)


def espeak() -> NativeWorker[Espeak]:
    return NativeWorker("espeak", Espeak, deadline_s=DEADLINE_S, memory=MEMORY)


class Preview:
    notes = ()

    def __init__(self, slots: int, workers: int = WORKERS) -> None:
        self.slots = slots
        self._workers = workers
        self._scripts: dict[int, _Script] = {}
        """Remaining clauses by slot, in order of admission."""
        self._turns = Turns()
        self._speaking: dict[int, Future[Spoken]] = {}
        self._pool = NativePool([espeak() for _ in range(workers)])
        self._pool.start()

    def admit(self, slot: int, utterance: Utterance) -> None:
        self._scripts[slot] = _Script(utterance)

    def step(self) -> Mapping[int, Chunk | Exception]:
        """Give each idle child process a clause; return the audio of the clauses that are finished.

        Waits until a clause is finished. If a child process is idle, waits at most POLL_S, because an
        utterance admitted after this step may have work for that process.
        """
        while len(self._speaking) < self._workers and (slot := self._next()) is not None:
            script = self._scripts[slot]
            clause = script.clauses[0]
            self._turns.record_turn(script.flow)
            self._speaking[slot] = self._pool.submit(Espeak.speak, clause.text, clause.profile, script.seed)
        timeout_s = POLL_S if len(self._speaking) < self._workers else None
        done, _ = wait(self._speaking.values(), timeout_s, FIRST_COMPLETED)
        said = [slot for slot, speech in self._speaking.items() if speech in done]
        return {slot: self._advance(self._scripts[slot], self._speaking.pop(slot)) for slot in said}

    def release(self, slot: int) -> None:
        self._scripts.pop(slot, None)
        if speech := self._speaking.pop(slot, None):
            speech.cancel()
        self._turns.forget_all_but(script.flow for script in self._scripts.values())

    def reset(self) -> None:
        for slot in [*self._scripts]:
            self.release(slot)

    def close(self) -> None:
        self.reset()
        self._pool.close()

    def _next(self) -> int | None:
        """Return the slot whose clause is synthesized next, or None if all slots are empty or in synthesis.

        The client whose last turn is the oldest goes first and, within it, the request with the oldest turn.
        """
        silent = (slot for slot in self._scripts if slot not in self._speaking)
        return min(silent, key=self._turn, default=None)  # the first admitted wins a tie

    def _turn(self, slot: int) -> tuple[int, int]:
        flow = self._scripts[slot].flow
        return self._turns.last(flow.client), self._turns.last(flow)

    def _advance(self, script: "_Script", speech: Future[Spoken]) -> Chunk | Exception:
        try:
            spoken = speech.result()
        except (NativeFailure, AudioProcessingError) as failure:
            return UnspeakableText(f"The preview voice cannot say the text: {failure}", param="text")
        except ServerError as error:
            return error
        clause = script.clauses.popleft()
        pcm = np.frombuffer(spoken.pcm, np.int16).astype(np.float32) / np.float32(32768)
        samples = resample(pcm, spoken.sample_rate)
        if script.clauses or not samples.any():
            samples = np.concatenate([samples, PAUSE_SAMPLES])
        samples = samples[: script.tokens_left * HOP]
        tokens = -(-len(samples) // HOP)
        script.tokens_left -= tokens
        script.done_length += len(clause.text)
        done = not script.clauses or not script.tokens_left
        progress = 1.0 if done else script.done_length / script.length
        words = _word_starts(clause, spoken, script.done_samples, len(samples))
        script.done_samples += len(samples)
        return Chunk(samples, tokens=tokens, progress=progress, done=done, words=words)


@dataclass(frozen=True, slots=True)
class Clause:
    """Part of an utterance that is synthesized at once."""

    profile: Profile
    """Profile of its speaker."""
    text: str
    start: int
    """Index of its first character in the utterance's text."""


class _Script:
    """Remaining clauses of an utterance, and its progress."""

    def __init__(self, utterance: Utterance) -> None:
        self.clauses = deque(clauses(utterance.text, utterance.voice))
        self.length = sum(len(clause.text) for clause in self.clauses)
        self.done_length = self.done_samples = 0
        self.seed = utterance.seed
        self.flow = utterance.flow
        self.tokens_left = sys.maxsize if utterance.max_tokens is None else utterance.max_tokens


def clauses(text: str, voice: str) -> list[Clause]:
    """Split `text` at its speaker tags and into clauses of at most MAX_CLAUSE characters.

    Non-verbal sounds such as "(laughs)" are replaced by spaces. Returns at least one clause, which may be
    empty.
    """
    profiles = _profiles(voice)
    found: list[Clause] = []
    silent = SOUND.sub(lambda sound: " " * len(sound[0]), text)  # of the same length: positions stay
    tags = [*SPEAKER.finditer(silent)]
    for tag, end in zip(tags, [*(tag.start() for tag in tags[1:]), len(silent)], strict=True):
        profile = profiles[int(tag[1]) - 1]
        starts = [tag.end(), *(cut.end() for cut in SENTENCE_END.finditer(silent, tag.end(), end))]
        for start, stop in pairwise([*starts, end]):
            found += [Clause(profile, part, at) for at, part in _split_clause(silent[start:stop], start)]
    return found or [Clause(profiles[0], "", 0)]


def _split_clause(clause: str, start: int) -> Iterator[tuple[int, str]]:
    """Yield parts of at most MAX_CLAUSE characters, cut after a comma, else at a space, else anywhere.

    Each part comes with its position; `clause` begins at the position `start`.
    """
    while part := clause.strip():
        start += len(clause) - len(clause.lstrip())
        cut = len(part)
        if cut > MAX_CLAUSE:
            cut = part.rfind(", ", 0, MAX_CLAUSE) + 1 or part.rfind(" ", 1, MAX_CLAUSE)
            cut = cut if cut > 0 else MAX_CLAUSE
        yield start, part[:cut]
        clause, start = part[cut:], start + cut


def _word_starts(clause: Clause, spoken: Spoken, before: int, count: int) -> tuple[WordStart, ...]:
    """Return the starts of the words within the first `count` samples of a clause.

    `before` is the number of samples before the clause. The first word begins with the clause.
    """
    scale = SAMPLE_RATE / spoken.sample_rate
    starts = [(character, round(sample * scale)) for character, sample in spoken.words]
    if starts:
        starts[0] = (starts[0][0], 0)
    return tuple(
        WordStart(clause.start + character, before + sample) for character, sample in starts if sample < count
    )


def _profiles(voice: str) -> tuple[Profile, Profile]:
    """Return the profiles that speak [S1] and [S2]: of both voices in "aria+luna", of one voice twice."""
    first, _, second = voice.partition("+")
    return _profile(first), _profile(second or first)


def _profile(voice: str) -> Profile:
    return VOICES.get(voice) or _derived_profile(voice)


def _derived_profile(voice: str) -> Profile:
    """Derive a profile from the id of a voice that is not built in; equal ids give equal profiles."""
    key = zlib.crc32(voice.encode())
    variants, pitches = (FEMALE, 45) if key % 2 else (MALE, 30)
    return Profile(variants[key // 2 % len(variants)], 30 + key // 12 % pitches, 130 + key // 540 % 11)


def resample(samples: Samples, rate: int) -> Samples:
    """Resample mono audio from `rate` to SAMPLE_RATE (44.1 kHz)."""
    if not len(samples):
        return samples
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = rate
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])
