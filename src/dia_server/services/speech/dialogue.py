"""Turns of a dialogue, each with its voice, as one text."""

import re
from collections.abc import Callable, Sequence

from dia_server.errors import Invalid, InvalidVoiceId
from dia_server.text.speakers import VOICE_CHARACTERS

TURN = re.compile(rf"^(?=\[voice:{VOICE_CHARACTERS}\]$)", re.MULTILINE)
"""Beginning of a turn in a text of `dialogue_text`."""
NEXT = "[S1]"
"""Tag that stands for the next turn while a turn is cleaned, so that its last sentence ends."""


def dialogue_text(turns: Sequence[tuple[str | None, str]]) -> str:
    """Return a text with a voice tag on a line above each turn; `turns` are pairs of voice id and text.

    So the cleaning sees the beginnings of the turns as beginnings of lines. Raises Invalid if a turn has no
    voice, InvalidVoiceId if its id cannot stand in a tag.
    """
    parts = []
    for number, (voice, text) in enumerate(turns):
        if voice is None:
            raise Invalid(f"inputs[{number}].voice_id is required", param="inputs")
        if not re.fullmatch(VOICE_CHARACTERS, voice):
            raise InvalidVoiceId(
                f"inputs[{number}]: voice {voice!r} does not exist; GET /voices lists them", param="inputs"
            )
        parts.append(f"[voice:{voice}]\n{text}")
    return "\n\n".join(parts)


def cleaned_turns(text: str, clean: Callable[[str], str]) -> str:
    """Return a text of `dialogue_text` with each turn cleaned by itself.

    So a code block or a thought that a turn does not close leaves the other turns as they are.
    """
    turns = (clean(f"{turn.strip()}\n\n{NEXT}") for turn in TURN.split(text) if turn.strip())
    return "\n\n".join(turn.strip().removesuffix(NEXT).strip() for turn in turns)
