"""Turns a script, whose lines begin with names, into text with voice tags."""

import re
from collections.abc import Mapping


def tag_script(text: str, cast: Mapping[str, str]) -> str:
    """Return `text` with a voice tag in place of each name of `cast` and colon that begin a line.

    `cast` maps names, in any case, to voice ids. A name may be bold in Markdown: "**Anna:** Hello". What
    follows belongs to that voice until the next name, also on further lines.
    """
    if not cast:
        return text
    voices = {_folded(name): voice_id.strip() for name, voice_id in cast.items()}
    names = "|".join(map(re.escape, sorted((name.strip() for name in cast), key=len, reverse=True)))
    line = re.compile(
        rf"^[ \t]*(?P<bold>\*\*|__)?(?P<name>{names})(?:(?P=bold))?[ \t]*:(?(bold)(?:(?P=bold))?)[ \t]*",
        re.IGNORECASE | re.MULTILINE,
    )
    return line.sub(lambda match: f"[voice:{voices[_folded(match['name'])]}] ", text)


def _folded(name: str) -> str:
    return name.strip().casefold()
