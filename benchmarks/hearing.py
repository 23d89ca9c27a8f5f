"""Word error rate, rate of speech and pitch of the preview engine's voices, as Whisper tiny.en hears them.

    python -m benchmarks.hearing [--voices aria zara]
    python -m benchmarks.hearing --texts [--voices aria zara]

Each voice says 20 Harvard sentences. With --texts, it says texts with Markdown, URLs, mixed case and
numbers, as they are written and as they are cleaned; both are compared with the words that a person
would read. Whisper decodes greedily, and its own normalizer is applied to both texts. A sentence has at
most as many errors as words.
"""

import argparse

import numpy as np

from dia_server.engine.preview import VOICES, Preview
from dia_server.text.clean import clean
from dia_server.text.clean.case import fold_mixed_case
from tests.heard_texts import HEARD
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


TEXTS_HEAD = """| texts | words | as written | cleaned |
|---|---|---|---|"""


def texts_row(preview: Preview, listener: Listener, voices: list[str], category: str) -> str:
    """Return the line of the table for one category of texts, the mean of all `voices`."""
    written, words = zip(*HEARD[category], strict=True)
    rates = []
    for texts in (written, [fold_mixed_case(clean(text)) for text in written]):
        heard = [
            listener.error_rate(words, [say(preview, " ".join(text.split()), voice) for text in texts])
            for voice in voices
        ]
        rates.append(f"{100 * np.mean(heard):.0f} %")
    count = sum(len(text.split()) for text in words)
    return f"| {' | '.join([category, str(count), *rates])} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voices", nargs="+", choices=VOICES, default=list(VOICES))
    parser.add_argument("--texts", action="store_true")
    given = parser.parse_args()
    preview, listener = Preview(slots=1), Listener()
    try:
        print(TEXTS_HEAD if given.texts else HEAD)
        for category in HEARD if given.texts else ():
            print(texts_row(preview, listener, given.voices, category), flush=True)
        for voice in () if given.texts else given.voices:
            print(row(preview, listener, voice), flush=True)
    finally:
        preview.close()


if __name__ == "__main__":
    main()
