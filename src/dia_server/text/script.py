"""Turns a script, whose lines begin with names, into text with voice tags."""

import re
import unicodedata
from collections.abc import Mapping


def tag_script(text: str, cast: Mapping[str, str]) -> str:
    """Return `text` with a voice tag in place of each name of `cast` and colon that begin a line.

    `cast` maps names to voice ids; case and the way accents are written do not count. A name may be bold in
    Markdown: "**Anna:** Hello". What follows belongs to that voice until the next name, also on further
    lines. A blank line before each tag ends what comes before it as a sentence.
    """
    if not cast:
        return text
    longest_first = sorted((name.strip(), voice_id.strip()) for name, voice_id in cast.items())
    longest_first.sort(key=lambda item: len(item[0]), reverse=True)
    voices = {f"name_{number}": voice_id for number, (_, voice_id) in enumerate(longest_first)}
    names = "|".join(
        f"(?P<name_{number}>{_either_form(name)})" for number, (name, _) in enumerate(longest_first)
    )
    line = re.compile(
        rf"^[ \t]*(?P<bold>\*\*|__)?(?:{names})(?:(?P=bold))?[ \t]*:(?(bold)(?:(?P=bold))?)[ \t]*",
        re.IGNORECASE | re.MULTILINE,
    )
    return line.sub(lambda match: f"\n[voice:{voices[match.lastgroup or '']}] ", text).removeprefix("\n")


def _either_form(name: str) -> str:
    """Return a pattern for `name` with composed or decomposed accents, which look the same."""
    return "|".join(sorted({re.escape(unicodedata.normalize(form, name)) for form in ("NFC", "NFD")}))
