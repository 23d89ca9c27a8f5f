"""Counts the frames that the codec decodes for each frame that is heard; runs nothing.

    python -m benchmarks.windows --speed 4

An utterance is generated at `--speed` times real time, and its listener begins with the first chunk. A stream
of 60 s has five segments of 12 s; the guard holds all but the first back, as by default.
"""

import argparse

from dia_server.engine.dia.model import STEPS_PER_POLL
from dia_server.engine.dia.windows import plan_chunk
from dia_server.units import FRAME_RATE

TAIL = 16
"""Decode steps from the first to the last code of a frame."""
SHORT, SEGMENT, SEGMENTS = 10.0, 12.0, 5
"""Seconds of a short utterance and of a segment, and segments of a long text."""


def decoded(seconds: float, speed: float | None) -> tuple[int, int]:
    """Return the frames decoded and the frames used of an utterance; `speed` is None if nobody listens."""
    frames = int(seconds * FRAME_RATE)
    emitted = count = 0
    began: float | None = None
    for steps in range(STEPS_PER_POLL, frames + TAIL + STEPS_PER_POLL, STEPS_PER_POLL):
        complete = min(max(0, steps - TAIL), frames)
        lead = float("inf")
        if speed is not None:
            lead = 0.0 if began is None else emitted - (steps - began) / speed
        while span := plan_chunk(emitted, complete, complete == frames, lead):
            began = steps if began is None else began
            emitted += span.n
            count += span.length
    assert emitted == frames
    return count, frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--speed", type=float, default=4.0, help="times real time of each utterance")
    speed = parser.parse_args().speed
    segment, held = decoded(SEGMENT, speed), decoded(SEGMENT, None)
    rows = {
        "stream, 10 s": decoded(SHORT, speed),
        "job, 10 s": decoded(SHORT, None),
        "stream, 60 s": tuple(one + (SEGMENTS - 1) * other for one, other in zip(segment, held, strict=True)),
        "job, 60 s": tuple(SEGMENTS * one for one in held),
    }
    print("| utterance | frames used | frames decoded | share |\n|---|---|---|---|")
    for name, (count, frames) in rows.items():
        print(f"| {name} | {frames} | {count} | {count / frames:.2f} |")


if __name__ == "__main__":
    main()
