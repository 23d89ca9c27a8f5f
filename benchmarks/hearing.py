"""Word error rate, rate of speech and pitch of the preview engine's voices, as Whisper tiny.en hears them.

    python -m benchmarks.hearing [--voices aria zara]

Both speakers of each voice say 20 Harvard sentences. Whisper decodes greedily, and its own normalizer is
applied to both texts. A sentence has at most as many errors as words. A star marks a voice's main speaker.
"""

import argparse

import numpy as np

from dia_server.engine.preview import VOICES, Preview
from tests.hearing import MAIN_SPEAKERS, SENTENCES, Listener, median_pitch, say, words_per_minute

HEAD = """| voice | speaker | espeak-ng variant | rate | word error rate | words a minute | pitch, Hz |
|---|---|---|---|---|---|---|"""


def row(preview: Preview, listener: Listener, voice: str, tag: str) -> str:
    """Return the line of the table for one speaker."""
    profile = VOICES[voice][tag == "S2"]
    star = " *" if tag == MAIN_SPEAKERS[voice] else ""
    recordings = [say(preview, sentence, voice, tag) for sentence in SENTENCES]
    cells = (
        *(voice, f"{tag}{star}", profile.variant, profile.rate),
        f"{100 * listener.error_rate(SENTENCES, recordings):.0f} %",
        f"{words_per_minute(SENTENCES, recordings):.0f}",
        f"{median_pitch(np.concatenate(recordings)):.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voices", nargs="+", choices=VOICES, default=list(VOICES))
    given = parser.parse_args()
    preview, listener = Preview(slots=1), Listener()
    try:
        print(HEAD)
        for voice in given.voices:
            for tag in ("S1", "S2"):
                print(row(preview, listener, voice, tag), flush=True)
    finally:
        preview.close()


if __name__ == "__main__":
    main()
