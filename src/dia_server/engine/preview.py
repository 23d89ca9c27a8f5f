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
from itertools import chain
from pathlib import Path

import av
import espeakng_loader
import numpy as np

from dia_server.engine.espeak import Espeak, Profile
from dia_server.engine.turns import Turns
from dia_server.engine.types import Chunk, Model, Samples, Utterance
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
        self._speaking: dict[int, Future[tuple[int, bytes]]] = {}
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
            profile, clause = script.clauses[0]
            self._turns.record_turn(script.flow)
            self._speaking[slot] = self._pool.submit(Espeak.speak, clause, profile, script.seed)
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

    def _advance(self, script: "_Script", speech: Future[tuple[int, bytes]]) -> Chunk | Exception:
        try:
            rate, pcm = speech.result()
        except (NativeFailure, AudioProcessingError) as failure:
            return UnspeakableText(f"The preview voice cannot say the text: {failure}", param="text")
        except ServerError as error:
            return error
        _, clause = script.clauses.popleft()
        samples = resample(np.frombuffer(pcm, np.int16).astype(np.float32) / np.float32(32768), rate)
        if script.clauses or not samples.any():
            samples = np.concatenate([samples, PAUSE_SAMPLES])
        samples = samples[: script.tokens_left * HOP]
        tokens = -(-len(samples) // HOP)
        script.tokens_left -= tokens
        script.done_length += len(clause)
        done = not script.clauses or not script.tokens_left
        progress = 1.0 if done else script.done_length / script.length
        return Chunk(samples, tokens=tokens, progress=progress, done=done)


class _Script:
    """Remaining clauses of an utterance, and its progress."""

    def __init__(self, utterance: Utterance) -> None:
        self.clauses = deque(clauses(utterance.text, utterance.voice))
        self.length = sum(len(clause) for _, clause in self.clauses)
        self.done_length = 0
        self.seed = utterance.seed
        self.flow = utterance.flow
        self.tokens_left = sys.maxsize if utterance.max_tokens is None else utterance.max_tokens


def clauses(text: str, voice: str) -> list[tuple[Profile, str]]:
    """Split `text` at its speaker tags and into clauses of at most MAX_CLAUSE characters.

    Each clause comes with its speaker's profile. Non-verbal sounds such as "(laughs)" are left out. Returns
    at least one clause, which may be empty.
    """
    profiles = _profiles(voice)
    _, *parts = SPEAKER.split(text)
    found = []
    for number, said in zip(parts[::2], parts[1::2], strict=True):
        profile = profiles[int(number) - 1]
        spoken_text = SOUND.sub(" ", said)
        found += [
            (profile, part)
            for part in chain.from_iterable(map(_split_clause, SENTENCE_END.split(spoken_text)))
        ]
    return found or [(profiles[0], "")]


def _split_clause(clause: str) -> Iterator[str]:
    """Yield parts of at most MAX_CLAUSE characters, cut after a comma, else at a space, else anywhere."""
    clause = clause.strip()
    while len(clause) > MAX_CLAUSE:
        cut = clause.rfind(", ", 0, MAX_CLAUSE) + 1 or clause.rfind(" ", 1, MAX_CLAUSE)
        cut = cut if cut > 0 else MAX_CLAUSE
        yield clause[:cut]
        clause = clause[cut:].strip()
    if clause:
        yield clause


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
