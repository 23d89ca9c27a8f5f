"""What the host knows of one utterance in a slot: how far it has come and what of it was handed out."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import LongTensor, Tensor

from dia_server.engine.dia.codec import Span, Window, plan_chunk
from dia_server.engine.dia.delay import undelayed
from dia_server.engine.dia.state import NEVER
from dia_server.engine.types import Frames, Utterance

FRAMES_A_BYTE = 5.75
"""Of speech for a byte of text, about 15 characters a second: only for progress while the end is open."""


class Outcome(NamedTuple):
    """Where some steps have brought a run."""

    position: int
    eos_at: int
    live: bool
    broken: bool
    columns: Tensor
    """[steps, channels]: those made; what follows them, once the run has ended, means nothing."""


@dataclass(slots=True, eq=False)
class Run:
    utterance: Utterance
    text_length: int
    """Bytes of the text, its prompt's transcript included."""
    utterance_bytes: int
    """Bytes of the text alone."""
    prompt: int
    """Frames of the voice prompt, which are also the columns to be prefilled."""
    limit: int
    """Decoder steps at most."""
    delay: tuple[int, ...]
    columns: Tensor
    """[prompt + limit + 1, channels], on the host: the grid as far as it is known."""
    prefill_uncond: bool
    """Whether the row without a text must be prefilled as well."""
    prefilled: int = 0
    position: int = field(init=False)
    """The last column that the host knows."""
    eos_at: int = NEVER
    ended: bool = False
    broken: bool = False
    emitted: int = 0
    """Frames given to the codec."""
    counted: int = 0
    """Decoder steps reported with the chunks so far."""

    def __post_init__(self) -> None:
        self.position = self.prompt

    @property
    def running(self) -> bool:
        """Whether the prompt is in the cache and the end is not known to be reached."""
        return self.prefilled == self.prompt and not self.ended

    @property
    def complete(self) -> int:
        """Frames, after the prompt's, of which all channels are known."""
        tail = max(self.delay)
        return max(0, min(self.position - tail, self.eos_at - 1) - self.prompt)

    @property
    def progress(self) -> float:
        """Exact once channel 0 has ended; before, by the text's usual length, but no more than the limit."""
        made = self.position - self.prompt
        if self.eos_at < NEVER:
            total = self.eos_at + max(self.delay) - self.prompt
        else:
            usual = int(self.utterance_bytes * FRAMES_A_BYTE) + max(self.delay) + 1
            total = min(self.limit, max(usual, made + made // 8 + 1))
        return min(1.0, made / max(1, total))

    def apply(self, outcome: Outcome) -> None:
        """Take over what the device has made since `position`."""
        made = outcome.position - self.position
        self.columns[self.position + 1 : outcome.position + 1] = outcome.columns[:made]
        self.position, self.eos_at = outcome.position, outcome.eos_at
        self.ended, self.broken = not outcome.live, outcome.broken

    def next_window(self) -> Window | None:
        """The next frames for the codec, with their context; None where they are too few as yet."""
        span = plan_chunk(self.emitted, self.complete, self.ended)
        if span is None:
            return None
        self.emitted += span.n
        return Window(self._frames(span), span.left, span.n)

    def count_tokens(self) -> int:
        """Decoder steps made since this was last asked."""
        made = self.position - self.prompt - self.counted
        self.counted += made
        return made

    @property
    def finished(self) -> bool:
        """Whether the codec has been given everything."""
        return self.ended and self.emitted == self.complete

    def frames(self) -> Frames:
        """All frames so far, without the prompt's."""
        frames = undelayed(self.columns, self.prompt, self.prompt + self.complete, self.delay)
        return frames.numpy().astype(np.int16)

    def _frames(self, span: Span) -> LongTensor:
        return undelayed(self.columns, self.prompt + span.start, self.prompt + span.stop, self.delay)
