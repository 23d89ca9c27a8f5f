"""A request for candidates of a voice's anchor, and the check of its text."""

from dataclasses import dataclass

from dia_server.errors import Invalid, TextTooLong
from dia_server.services.speech.anchor_maker import SCRIPT
from dia_server.text.plan import plan
from dia_server.text.speakers import CAST_TAG, clean_transcript, is_pronounceable

MAX_COUNT = 8
"""Maximum candidates of a voice."""
MAX_TEXT = 200
"""Maximum characters of a candidate's text: about 14 s of speech, and an anchor may have 15 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRequest:
    count: int
    seed: int | None = None
    """Seed of the first candidate, random if None; each further candidate has the next seed."""
    style: str | None = None
    """Style by which they are ranked; None for the voice's own."""
    text: str = SCRIPT


def check_text(text: str) -> str:
    """Return the text of candidates as one line; raises TextTooLong, or Invalid if it cannot be an anchor."""
    if len(text) > MAX_TEXT:
        raise TextTooLong(
            f"text has {len(text)} characters; the limit for a candidate is {MAX_TEXT}",
            param="text",
            limit=MAX_TEXT,
        )
    text = clean_transcript(text)
    planned = plan(f"[S1] {text}") if is_pronounceable(text) and not CAST_TAG.search(text) else None
    if planned is None or len(planned.utterances) != 1 or planned.pauses_s:
        raise Invalid(
            "text must be one or a few sentences of one speaker, without speaker tags and pauses",
            param="text",
        )
    return text
