"""Which frames of a sequence are decoded together: windows of few lengths, in batches of few sizes.

A decoded sample depends on at most 9.25 frames on either side, so a window with CONTEXT frames on both sides
of the frames that are used decodes to the same samples as the whole sequence. Context is omitted only at the
sequence's own start and end.

Every window is padded to one of LENGTHS, and a batch has a size of which all windows fit into MAX_FRAMES. So
there are 22 shapes, each of which is a CUDA graph:

| length | frames used of a full window | windows in a batch |
|---|---|---|
| 14 | 4, the first chunk of a stream | 1, 2, 4, 8, 16 |
| 18 | 4, its second | 1, 2, 4, 8 |
| 26 | 8, its third | 1, 2, 4, 8 |
| 40 | 20 | 1, 2, 4 |
| 64 | 44, half a second | 1, 2, 4 |
| 112 | 92, a second | 1, 2 |
| 192 | 172, two seconds | 1 |

A stream waits for 4 frames, then for as many as it has had, up to 44: each chunk can be generated while the
earlier ones play. A stream that is more than AHEAD of its listener, and an utterance to which nobody listens
yet, wait for a full window of the greatest length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from torch import LongTensor

from dia_server.units import FRAME_RATE

CONTEXT = 10
"""Context frames on each side of a window's audio; fewer at the start and the end of the sequence."""
LENGTHS = (14, 18, 26, 40, 64, 112, 192)
"""Frames of a window, with its context, to which shorter windows are padded."""
LONGEST = LENGTHS[-1]
MAX_FRAMES = 256
"""Maximum frames of a batch. Decoding them takes 0.23 GiB of memory, and a few ms for which others wait."""
MAX_WINDOWS = 16
"""Maximum windows of a batch."""
FIRST_CHUNK = 4
"""Frames in the first chunk of a stream: few, for early audio."""
USUAL_CHUNK = 44
"""Frames for which a stream waits at most, unless it is ahead."""
AHEAD = FRAME_RATE
"""Frames beyond which a stream is far ahead of its listener: a second."""


class Shape(NamedTuple):
    """Size of a batch of windows."""

    windows: int
    length: int
    """Frames of each window."""


SHAPES = tuple(
    Shape(windows, length)
    for length in LENGTHS
    for windows in (1, 2, 4, 8, 16)
    if windows * length <= MAX_FRAMES
)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Frames to decode: `left` frames of context, `n` frames whose audio is returned, then more context."""

    frames: LongTensor
    """Codes [T, 9] on any device, left + n <= T <= LONGEST; the frames from left + n on are context."""
    left: int
    n: int


@dataclass(frozen=True, slots=True)
class Span:
    """Indices of the next chunk's frames.

    Frames [start, stop) form the window to decode. Frames [start + left, start + left + n) are those whose
    audio is returned; the others are context.
    """

    start: int
    stop: int
    left: int
    n: int

    @property
    def length(self) -> int:
        """Frames of the padded window."""
        return padded_length(self.stop - self.start)


def padded_length(frames: int) -> int:
    """Return the length to which a window of `frames` frames, at most LONGEST, is padded."""
    return next(length for length in LENGTHS if length >= frames)


def plan_chunk(emitted: int, complete: int, ended: bool, lead: float = 0.0) -> Span | None:
    """Return the next span to decode, or None if too few frames are complete or none is left.

    `emitted` of the `complete` frames have been passed to the codec already; `lead` is the number of frames
    that the listener has not heard yet. Until the sequence has `ended`, a chunk is decoded only once the
    CONTEXT frames after its audio are complete.
    """
    left = min(emitted, CONTEXT)
    most = LONGEST - left
    if ended:
        rest = complete - emitted
        n = rest if rest <= most else most - CONTEXT
    else:
        n = _chunk(complete - CONTEXT - emitted, emitted, left, wait=lead > AHEAD)
    if n == 0:
        return None
    return Span(emitted - left, min(complete, emitted + n + CONTEXT), left, n)


def _chunk(ready: int, emitted: int, left: int, *, wait: bool) -> int:
    """Return how many of the `ready` frames to decode now; with `wait`, none but for the longest window."""
    least = min(max(emitted, FIRST_CHUNK), USUAL_CHUNK)
    full = [n for length in LENGTHS if least <= (n := length - left - CONTEXT) <= ready]
    if ready < (LONGEST - left - CONTEXT if wait else least):
        return 0
    return full[-1] if full else ready


T = TypeVar("T")


def batches(items: Sequence[T], length: int) -> Iterator[Sequence[T]]:
    """Split windows of one padded length into batches of the sizes in SHAPES, the largest first."""
    sizes = [shape.windows for shape in reversed(SHAPES) if shape.length == length]
    start = 0
    while start < len(items):
        size = next(size for size in sizes if size <= len(items) - start)
        yield items[start : start + size]
        start += size
