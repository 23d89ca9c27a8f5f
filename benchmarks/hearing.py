"""Word error rate, rate of speech and pitch of the preview engine's voices, as Whisper tiny.en hears them.

    python -m benchmarks.hearing [--voices aria zara]

Each voice says 20 Harvard sentences. Whisper decodes greedily, and its own normalizer is applied to both
texts. A sentence has at most as many errors as words.
"""

import argparse

import numpy as np

from dia_server.engine.preview import VOICES, Preview
from tests.hearing import SENTENCES, Listener, median_pitch, say, words_per_minute

HEAD = """| voice | espeak-ng variant | rate | word error rate | words a minute | pitch, Hz |
|---|---|---|---|---|---|"""


def row(preview: Preview, listener: Listener, voice: str) -> str:
    """Return the line of the table for one voice."""
    profile = VOICES[voice]
    recordings = [say(preview, sentence, voice) for sentence in SENTENCES]
    cells = (
        *(voice, profile.variant, profile.rate),
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
            print(row(preview, listener, voice), flush=True)
    finally:
        preview.close()


if __name__ == "__main__":
    main()
