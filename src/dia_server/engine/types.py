"""The engine's input and output types, and the `Model` protocol that it runs."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Literal, Protocol, Self
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from dia_server.units import HOP

EngineName = Literal["dia", "preview"]


Samples = NDArray[np.float32]
"""Mono audio in [-1, 1] at SAMPLE_RATE."""

Frames = NDArray[np.int16]
"""Codes of the audio codec, shape [n frames, 9 codebooks]; only Dia makes them."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Recorded audio; the model encodes it to frames."""

    samples: Samples
    digest: str
    """Identifier of the content of `samples`: equal digests mean equal audio."""

    @property
    def frame_count(self) -> int:
        """Number of frames to which the samples are encoded."""
        return -(-len(self.samples) // HOP)


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedAudio:
    """Audio that the model has generated, as frames: it needs no encoding."""

    frames: Frames

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.frames.tobytes()).hexdigest()

    @property
    def frame_count(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True, eq=False)
class VoicePrompt:
    """Audio that the model continues in the same voice, with its transcript (including speaker tags)."""

    parts: tuple[Recording | GeneratedAudio, ...]
    """The audio, in the order of the transcript; at least one part."""
    transcript: str
    gain_db: float = 0.0
    """Decibels by which speech in this voice is amplified, so that all voices are equally loud."""

    @property
    def key(self) -> str:
        """Identifier of the prompt's audio, not of its transcript."""
        return "+".join(part.digest for part in self.parts)

    @property
    def frame_count(self) -> int:
        """Number of frames of all parts."""
        return sum(part.frame_count for part in self.parts)

    def followed_by(self, frames: Frames, text: str) -> "VoicePrompt":
        """Return this prompt, continued by generated `frames` that say `text`."""
        return replace(
            self, parts=(*self.parts, GeneratedAudio(frames)), transcript=f"{self.transcript} {text}"
        )


@dataclass(frozen=True, slots=True)
class Flow:
    """Client and request of an utterance; slots are shared fairly between clients and between requests."""

    client: str = ""
    request: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance to generate, with all defaults resolved."""

    text: str
    """Text with speaker tags, such as "[S1] Hello. [S2] Hi!"."""
    voice: str
    """Voice id. The preview selects its profiles by it; Dia ignores it and clones `prompt`."""
    seed: int
    """Sampling seed, 0 to 2**32 - 1."""
    temperature: float = 1.2
    """Sampling temperature; 0 is greedy decoding."""
    cfg_scale: float = 3.0
    top_p: float = 0.95
    top_k: int = 45
    max_tokens: int | None = None
    """Maximum decode steps; None for the model's maximum."""
    prompt: VoicePrompt | None = None
    streamed: bool = True
    """Whether its audio is heard while it is generated; otherwise Dia makes fewer and longer chunks."""
    flow: Flow = field(default_factory=Flow)


@dataclass(frozen=True, slots=True)
class WordStart:
    """Where a word of an utterance begins."""

    character: int
    """Index of its first character in `Utterance.text`."""
    sample: int
    """Index of its first sample in the samples of all the utterance's chunks."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Newly generated audio of one utterance, possibly empty, and the utterance's progress."""

    samples: Samples
    tokens: int
    """Decode steps since the previous chunk; in the preview, codec frames that `samples` would fill."""
    progress: float
    """Share of the utterance generated so far, 0 to 1; an estimate until the last chunk."""
    done: bool
    frames: Frames | None = None
    """Codec frames of the whole utterance; only in its last chunk, None for the preview."""
    words: tuple[WordStart, ...] = ()
    """Starts of the words that begin in `samples`, as far as the model knows them; Dia knows none."""


class Model(Protocol):
    """A batched model with a fixed number of slots; only the engine's thread calls it."""

    slots: int

    @property
    def notes(self) -> tuple[str, ...]:
        """One text per part that runs degraded on this machine, with cause and remedy."""
        ...

    def admit(self, slot: int, utterance: Utterance) -> None:
        """Put `utterance` into the free `slot`; an error raised here fails this utterance only."""

    def step(self) -> Mapping[int, Chunk | Exception]:
        """Advance the busy slots; return new chunks by slot, without the slots that have none.

        An exception as a slot's value fails that slot's utterance; a raised exception fails the utterances of
        all slots. A slot stays busy until `release`, even after its last chunk.
        """

    def release(self, slot: int) -> None:
        """Free `slot`, whether its utterance is finished, failed or still running."""

    def reset(self) -> None:
        """Restore the model after `step` has raised; all slots are then free."""

    def close(self) -> None:
        """Release threads, memory and processes."""


LoadModel = Callable[[Callable[[float], None]], Model]
"""Function that loads a model; it reports the share loaded so far, 0 to 1, by calling its argument."""


@dataclass(slots=True)
class Work:
    """Counters since the engine's start, written by its thread and readable from any thread."""

    steps: int = 0
    """Number of `Model.step` calls; in Dia, each runs several decode steps."""
    slot_steps: int = 0
    """Number of busy slots, summed over all `steps`; divided by `steps`, it is the mean batch size."""
    tokens: int = 0
    """Sum of `Chunk.tokens` over all utterances."""
    samples: int = 0
    """Number of samples generated, at SAMPLE_RATE and before any change of tempo."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))
