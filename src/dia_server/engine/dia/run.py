"""The host's record of one utterance in a slot: its progress and how much of its audio has been emitted."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import LongTensor, Tensor

from dia_server.engine.dia.delay import undelayed
from dia_server.engine.dia.state import NEVER
from dia_server.engine.dia.windows import Span, Window, plan_chunk
from dia_server.engine.types import Frames, Utterance
from dia_server.units import FRAME_RATE

FRAMES_A_BYTE = 5.75
"""Codec frames per byte of text, at about 15 characters a second; only used to estimate progress."""


class Outcome(NamedTuple):
    """A run's state after one poll."""

    position: int
    eos_at: int
    live: bool
    broken: bool
    columns: Tensor
    """[steps, channels]: columns that the poll's steps sampled; those after the run's end are meaningless."""


@dataclass(slots=True, eq=False)
class Run:
    """One utterance in a slot, as the host knows it: on CUDA the device is up to one poll ahead."""

    utterance: Utterance
    text_length: int
    """Bytes of the encoded text, including the prompt's transcript."""
    utterance_bytes: int
    """Bytes of the utterance's own text, without the transcript."""
    prompt: int
    """Number of frames of the voice prompt; as many columns are prefilled."""
    limit: int
    """Maximum decode steps."""
    delay: tuple[int, ...]
    columns: Tensor
    """[prompt + limit + 1, channels]: the host's copy of the grid, UNKNOWN where no token is known yet."""
    prefill_uncond: bool
    """Whether the unconditional row must be prefilled too, because the prompt cache lacks its KV cache."""
    prefilled: int = 0
    position: int = field(init=False)
    """Index of the last column that has been copied to the host."""
    eos_at: int = NEVER
    ended: bool = False
    broken: bool = False
    emitted: int = 0
    """Frames passed to the codec for decoding so far."""
    counted: int = 0
    """Decode steps reported with the chunks so far."""
    playing_since: float | None = None
    """Time in seconds at which the first chunk was decoded, and the listener could begin to hear it."""

    def __post_init__(self) -> None:
        self.position = self.prompt

    @property
    def running(self) -> bool:
        """Whether the prompt is prefilled and the run has not ended, as far as the host knows."""
        return self.prefilled == self.prompt and not self.ended

    @property
    def complete(self) -> int:
        """Number of frames after the prompt whose channels are all known."""
        tail = max(self.delay)
        return max(0, min(self.position - tail, self.eos_at - 1) - self.prompt)

    @property
    def progress(self) -> float:
        """Share of the utterance that is generated, 0 to 1.

        Until EOS is known, the total is estimated from the text's length.
        """
        made = self.position - self.prompt
        if self.eos_at < NEVER:
            total = self.eos_at + max(self.delay) - self.prompt
        else:
            usual = int(self.utterance_bytes * FRAMES_A_BYTE) + max(self.delay) + 1
            total = min(self.limit, max(usual, made + made // 8 + 1))
        return min(1.0, made / max(1, total))

    def apply(self, outcome: Outcome) -> None:
        """Append the columns generated since `position` and update the run's state."""
        made = outcome.position - self.position
        self.columns[self.position + 1 : outcome.position + 1] = outcome.columns[:made]
        self.position, self.eos_at = outcome.position, outcome.eos_at
        self.ended, self.broken = not outcome.live, outcome.broken

    def next_span(self, lead: float) -> Span | None:
        """Return the next frames to decode, or None if too few frames are complete or none is left.

        `lead` is the number of frames that the listener has not heard yet.
        """
        return plan_chunk(self.emitted, self.complete, self.ended, lead)

    def take(self, span: Span) -> Window:
        """Return the frames of `span`, which `next_span` has returned, and count them as emitted."""
        self.emitted += span.n
        return Window(self._frames(span), span.left, span.n)

    def begin_playback(self, now: float) -> None:
        """Note the time of the first chunk; later calls do nothing."""
        if self.playing_since is None:
            self.playing_since = now

    def lead(self, now: float) -> float:
        """Return the emitted frames that a listener who has played without a pause has not heard yet."""
        return 0.0 if self.playing_since is None else self.emitted - (now - self.playing_since) * FRAME_RATE

    def count_tokens(self) -> int:
        """Return the decode steps since the last call."""
        made = self.position - self.prompt - self.counted
        self.counted += made
        return made

    @property
    def finished(self) -> bool:
        """Whether the run has ended and all its frames have been passed to the codec."""
        return self.ended and self.emitted == self.complete

    def frames(self) -> Frames:
        """Return all complete frames [n, channels], without the prompt's."""
        frames = undelayed(self.columns, self.prompt, self.prompt + self.complete, self.delay)
        return frames.numpy().astype(np.int16)

    def _frames(self, span: Span) -> LongTensor:
        return undelayed(self.columns, self.prompt + span.start, self.prompt + span.stop, self.delay)
