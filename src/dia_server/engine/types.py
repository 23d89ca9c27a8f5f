"""The engine's input and output types, and the `Model` protocol that it runs."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Literal, Protocol, Self
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

EngineName = Literal["dia", "preview"]


Samples = NDArray[np.float32]
"""Mono audio in [-1, 1] at SAMPLE_RATE."""

Frames = NDArray[np.int16]
"""The codec's codes [n, 9], of a model that has a codec."""


@dataclass(frozen=True, slots=True)
class VoicePrompt:
    """Audio that an utterance continues, and its transcript with speaker tags."""

    samples: Samples
    """Recording at SAMPLE_RATE; empty if the prompt is generated frames only."""
    transcript: str
    digest: str
    """Names the content of `samples`: equal digests, equal audio."""
    generated_frames: Frames | None = None
    """Frames that the model generated, which follow the recording."""

    @property
    def key(self) -> str:
        """Names all of it but the transcript."""
        if self.generated_frames is None:
            return self.digest
        return f"{self.digest}+{hashlib.sha256(self.generated_frames.tobytes()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Flow:
    """The request that an utterance is part of, and its client: the units that share slots fairly."""

    client: str = ""
    request: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance to generate; every field is already resolved to what the model needs."""

    text: str
    """With speaker tags: "[S1] Hello. [S2] Hi!"."""
    voice: str
    """The voice's id, for a model that has voices of its own."""
    seed: int
    """0 to 2**32 - 1."""
    temperature: float = 1.2
    """0 is greedy."""
    cfg_scale: float = 3.0
    top_p: float = 0.95
    top_k: int = 45
    max_tokens: int | None = None
    """Decoder steps at most; None for as many as the model can."""
    prompt: VoicePrompt | None = None
    compile: bool = True
    """False asks for plain kernels where the model would run compiled ones."""
    flow: Flow = field(default_factory=Flow)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Newly made audio of one utterance (it may be empty), and how far the utterance has come."""

    samples: Samples
    tokens: int
    """Decoder steps made since the previous chunk."""
    progress: float
    """Share of the utterance that is generated, 0 to 1; an estimate until its end is known."""
    done: bool
    frames: Frames | None = None
    """Frames of the whole utterance, in its last chunk."""


class Model(Protocol):
    """A batched model with a fixed number of slots; all calls come from the engine's thread."""

    slots: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Parts that work in a reduced way on this machine, with cause and remedy."""
        ...

    def admit(self, slot: int, utterance: Utterance) -> None:
        """Take `utterance` into the free `slot`; raises what concerns this utterance alone."""

    def step(self) -> Mapping[int, Chunk | Exception]:
        """Advance the busy slots for a moment; return what is new of each.

        An exception as a slot's value ends that utterance, one that is raised ends them all. A
        slot stays busy until it is released.
        """

    def release(self, slot: int) -> None:
        """Free `slot`, whatever it is doing."""

    def reset(self) -> None:
        """Make the model whole again after `step` has raised, with every slot free."""

    def close(self) -> None:
        """Give back threads, memory and processes."""


LoadModel = Callable[[Callable[[float], None]], Model]
"""Load a model; it calls its argument with the share that is loaded (0 to 1)."""


@dataclass(slots=True)
class Work:
    """Counts since the engine was started; its thread adds to them and any thread may read them."""

    steps: int = 0
    """Calls of the model's `step`; for Dia one is a poll of several decoder steps."""
    slot_steps: int = 0
    """Busy slots, summed over the steps: divided by `steps` it is the mean batch."""
    tokens: int = 0
    """Decoder steps of all utterances."""
    samples: int = 0
    """At SAMPLE_RATE, before any change of speed."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))
