"""Generates the recording of one request: concurrent segments, whose audio is put out in order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dia_server.audio.join import Join
from dia_server.engine.types import Chunk, Flow, GeneratedAudio, Samples, Utterance, VoicePrompt
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.narrator import EMPTY, Narrator
from dia_server.services.speech.request import SegmentVoices
from dia_server.services.speech.segment import Segment
from dia_server.services.speech.timestamps import Timestamp, Timing
from dia_server.services.speech.usage import UsageMeter
from dia_server.text.budget import encoded_length
from dia_server.text.plan import ANCHOR, Plan, PlannedUtterance
from dia_server.units import SAMPLE_RATE

UNLIMITED_S = float("inf")
NOTHING = np.zeros(SAMPLE_RATE // 4, np.float32)
"""0.25 s of silence for text with nothing to pronounce (such as "."), because clients reject empty files."""
MAX_CHUNK = SAMPLE_RATE // 4
"""Maximum samples per output chunk. Encoding 2.5 s to MP3 takes 75 ms, so smaller chunks keep playback
latency low."""
MIN_RUNNING = 2
"""Number of segments that run even if no slot is free: the one that is being put out, and the next."""


@dataclass(frozen=True, slots=True)
class Narrated:
    """The next samples of the recording, perhaps 0 samples, and the progress so far."""

    samples: Samples
    progress: float
    """Share of the recording that is generated, 0 to 1; never decreases."""
    timestamps: Sequence[Timestamp] = ()
    """Timestamps of the segment that ends here."""
    gain_db: float | None = None
    """Gain of the samples, which is not applied yet (see `SegmentVoices`)."""


class Narration:
    """Generates the recording of one request; use it for one call of `play`.

    A segment that the guard judges is put out once it is complete and judged, except the first one of a
    live delivery. That one is put out chunk by chunk, like segments that are not judged, and so cannot be
    retried. The recording depends on the seed, but not on the speed of engine or client.

    A segment is started if a slot is free or fewer than MIN_RUNNING segments are running. With live delivery,
    moreover, it may not raise the estimated speech of the running segments above `narrator.ahead_s` seconds.
    If no segment is running, the next one starts in any case.

    If the plan is anchored and the engine clones voices, the first suitable segment becomes the anchor: its
    text and audio are appended to the audio prompt of all later segments, so that they have its voice. A
    segment is suitable if it is complete, audible, without faults and within the limits of ANCHOR. Until
    there is an anchor, segments run one at a time.
    """

    def __init__(
        self,
        narrator: Narrator,
        plan: Plan,
        base: Utterance,
        delivery: Delivery,
        meter: UsageMeter,
        *,
        speed: float = 1.0,
        timing: Timing | None = None,
        voices: Callable[[PlannedUtterance], SegmentVoices] | None = None,
    ) -> None:
        """`base` has the sampling parameters of all segments, and their voice unless `voices` returns that.

        `timing` asks for timestamps.

        The encoder applies `speed` later, also to pauses. So the pauses that the text's markup sets are
        multiplied by `speed` here: after encoding, they last as long as the markup says.
        """
        self._narrator = narrator
        self._plan = plan
        self._base = replace(base, flow=Flow(delivery.client))
        self._delivery = delivery
        self._meter = meter
        self._speed = speed
        self._timing = timing
        self._voices = voices
        self._anchor: VoicePrompt | None = None
        self._gain_db: float | None = None
        """Gain of the segment that is being put out."""
        self._planned = deque(plan.utterances)
        self._running: deque[Segment] = deque()
        self._needs_anchor = narrator.clones and plan.anchored
        self._ahead_s = narrator.ahead_s if delivery.live else UNLIMITED_S
        self._join = Join(SAMPLE_RATE)
        self._lead = EMPTY
        """Samples of the previous segment's end and the pause after it; empty once they are put out."""
        self._progress = 0.0
        self._done_s = 0.0
        self._total_s = plan.duration_s(speed) * speed or 1.0  # no division by 0 for a text of only accents

    async def play(self) -> AsyncGenerator[Narrated]:
        """Yield the recording while it is generated; closing the iterator cancels it and frees its slots."""
        try:
            self._start_segments()
            while self._running:
                segment = self._running[0]
                silence_s = segment.planned.pause_s * self._speed + segment.planned.gap_s
                self._lead = self._join.begin(silence_s)
                while (chunk := await segment.next()) is not None:
                    for part in self._append(segment, chunk):
                        yield part
                    self._start_segments()
                if timestamps := self._timestamps(segment):
                    yield Narrated(EMPTY, self._progress, timestamps)
                self._done_s += silence_s + segment.planned.estimated_s
                if self._needs_anchor and _can_anchor(segment):
                    self._set_anchor(segment)
                self._running.popleft()
                self._start_segments()
            yield Narrated(self._finish(), 1.0, gain_db=self._gain_db)
        finally:
            await self._cancel()

    def _start_segments(self) -> None:
        free = self._narrator.free_slots
        while self._planned and self._may_start(self._planned[0], free):
            planned = self._planned.popleft()
            first = planned is self._plan.utterances[0]
            voices = self._voices_of(planned)
            base = replace(self._base, voice=voices.voice, prompt=self._anchor or voices.prompt)
            has_parts = self._timing is not None and self._timing.granularity != "segment"
            segment = self._narrator.segment(
                planned,
                base,
                self._delivery,
                first=first,
                timing=self._timing if has_parts else None,
            )
            segment.gain_db = voices.gain_db
            segment.start(self._narrator.generate(segment, self._meter))
            self._running.append(segment)
            free -= 1

    def _voices_of(self, planned: PlannedUtterance) -> SegmentVoices:
        if self._voices is not None:
            return self._voices(planned)
        return SegmentVoices(self._base.voice, self._base.prompt, gain_db=None)

    def _may_start(self, planned: PlannedUtterance, free: int) -> bool:
        """Return whether `planned` may start now, given the anchor, the speech ahead and the `free` slots."""
        if not self._running:
            return True
        if self._needs_anchor:
            return False
        started_s = sum(segment.planned.estimated_s for segment in self._running)
        if started_s + planned.estimated_s > self._ahead_s:
            return False
        return len(self._running) < MIN_RUNNING or free > 0

    def _append(self, segment: Segment, chunk: Chunk) -> Iterator[Narrated]:
        """Append `chunk` to the recording; yield what is to be put out now: `Join` holds some back."""
        share = (self._done_s + chunk.progress * segment.planned.estimated_s) / self._total_s
        self._progress = max(self._progress, min(1.0, share))
        samples = self._join.push(chunk.samples)
        parts = [(self._lead, self._gain_db), (samples, segment.gain_db)]
        if segment.gain_db == self._gain_db:
            parts = [(np.concatenate([self._lead, samples]), self._gain_db)]
        self._lead, self._gain_db = EMPTY, segment.gain_db
        self._meter.tokens += chunk.tokens
        for samples, gain_db in parts:
            self._meter.samples += len(samples)
            for part in np.split(samples, range(MAX_CHUNK, len(samples), MAX_CHUNK)):
                yield Narrated(part, self._progress, gain_db=gain_db)

    def _timestamps(self, segment: Segment) -> Sequence[Timestamp]:
        """Return the timestamps of `segment`, whose audio is complete; none if it has no sound."""
        if self._timing is None or (sound := self._join.sound) is None:
            return ()
        if segment.timing is None:
            return [self._timing.of_segment(segment.planned.text, segment.planned.speakers, sound)]
        return self._timing.of_words(segment.placed, segment.planned.speakers, self._join.origin, sound)

    def _set_anchor(self, segment: Segment) -> None:
        """Append the text and the frames of `segment` to the audio prompt of the segments not yet started."""
        assert segment.frames is not None
        prompt, text = segment.utterance.prompt, segment.planned.text
        if prompt is None:
            self._anchor = VoicePrompt((GeneratedAudio(segment.frames),), text)
        else:
            self._anchor = prompt.followed_by(segment.frames, text)
        self._needs_anchor = False

    def _finish(self) -> Samples:
        """Return the samples still to be put out: the last segment's end, and the pause after it.

        Returns NOTHING if the recording has no samples at all.
        """
        tail = np.concatenate([self._join.begin(self._plan.pause_after_s * self._speed), self._join.finish()])
        if not self._meter.samples + len(tail):
            tail = NOTHING
        self._meter.samples += len(tail)
        return tail

    async def _cancel(self) -> None:
        # Cancel every task before awaiting any: the caller may itself be cancelled during the await.
        tasks = [task for segment in self._running if (task := segment.cancel())]
        await asyncio.gather(*tasks, return_exceptions=True)


def _can_anchor(segment: Segment) -> bool:
    """Return whether `segment` is audible, complete, without faults, and within the limits of ANCHOR."""
    return (
        segment.audible
        and segment.whole
        and segment.frames is not None
        and len(segment.frames) <= ANCHOR.max_columns
        and encoded_length(segment.planned.text) <= ANCHOR.max_bytes
    )
