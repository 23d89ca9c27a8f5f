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
"""Codes of the audio codec, shape [n, 9]; only Dia has them."""


@dataclass(frozen=True, slots=True)
class VoicePrompt:
    """Audio that the model continues in the same voice, with its transcript (including speaker tags)."""

    samples: Samples
    """Recording at SAMPLE_RATE; empty if the prompt consists of generated frames only."""
    transcript: str
    digest: str
    """Identifier of the content of `samples`: equal digests mean equal audio."""
    generated_frames: Frames | None = None
    """Codec frames of an earlier segment, appended to the recording."""

    @property
    def key(self) -> str:
        """Identifier of the audio: recording and generated frames, without the transcript."""
        if self.generated_frames is None:
            return self.digest
        return f"{self.digest}+{hashlib.sha256(self.generated_frames.tobytes()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Flow:
    """Client and request of an utterance: the units between which slots are shared fairly."""

    client: str = ""
    request: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance to generate, with all defaults resolved."""

    text: str
    """Text with speaker tags, such as "[S1] Hello. [S2] Hi!"."""
    voice: str
    """Voice id, for models with built-in voices (the preview)."""
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
    compile: bool = True
    """False runs eager kernels even if the model has compiled ones."""
    flow: Flow = field(default_factory=Flow)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Newly generated audio of one utterance, possibly empty, and the utterance's progress."""

    samples: Samples
    tokens: int
    """Decode steps since the previous chunk."""
    progress: float
    """Share of the utterance that is generated, 0 to 1; an estimate until the end is known."""
    done: bool
    frames: Frames | None = None
    """Codec frames of the whole utterance; only in its last chunk, None for the preview."""


class Model(Protocol):
    """A batched model with a fixed number of slots; only the engine's thread calls it."""

    slots: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Parts that run degraded on this machine, each with cause and remedy."""
        ...

    def admit(self, slot: int, utterance: Utterance) -> None:
        """Admit `utterance` into the free `slot`; an error raised here fails this utterance only."""

    def step(self) -> Mapping[int, Chunk | Exception]:
        """Advance the busy slots; return new chunks by slot.

        An exception as a slot's value fails that utterance; a raised exception fails all of them. A slot
        stays busy until it is released.
        """

    def release(self, slot: int) -> None:
        """Free `slot` in any state."""

    def reset(self) -> None:
        """Restore the model after `step` has raised; all slots are then free."""

    def close(self) -> None:
        """Release threads, memory and processes."""


LoadModel = Callable[[Callable[[float], None]], Model]
"""Function that loads a model and reports the share loaded, 0 to 1, through its argument."""


@dataclass(slots=True)
class Work:
    """Counters since the engine's start, written by its thread and readable from any thread."""

    steps: int = 0
    """Calls of `Model.step`; in Dia, each is a poll of several decode steps."""
    slot_steps: int = 0
    """Busy slots summed over the steps; divided by `steps`, the mean batch size."""
    tokens: int = 0
    """Decode steps, summed over all utterances."""
    samples: int = 0
    """Samples at SAMPLE_RATE, before any change of speed."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))
