"""List of the non-verbal sounds that Dia makes, such as "(laughs)", shared by all parts of the server.

The preview engine leaves these sounds out, the word check does not count them as words, and the studio offers
and highlights them (web/controllers/docs.py serves the list to its page).
"""

import re

_FORMS = {
    "laughs": "laugh(?:s|ing|ter)?",
    "chuckle": "chuckl(?:es?|ing)",
    "sighs": "sigh(?:s|ing)?",
    "gasps": "gasp(?:s|ing)?",
    "clears throat": r"clear(?:s|ing)?\s+throat",
    "coughs": "cough(?:s|ing)?",
    "whistles": "whistl(?:es?|ing)",
    "inhales": "inhal(?:es?|ing)",
    "exhales": "exhal(?:es?|ing)",
    "sniffs": "sniff(?:s|ing)?",
    "groans": "groan(?:s|ing)?",
    "mumbles": "mumbl(?:es?|ing)",
    "humming": "hum(?:s|ming)?",
    "singing": "sing(?:s|ing)?",
    "screams": "scream(?:s|ing)?",
    "sneezes": "sneez(?:es?|ing)",
    "burps": "burp(?:s|ing)?",
    "claps": "clap(?:s|ping)?",
    "applause": "applause",
    "beep": "beep(?:s|ing)?",
}
"""Usual name of each sound, mapped to a regular expression for all forms of the name."""

SOUNDS = tuple(_FORMS)
"""Names of the sounds, in the order in which the studio offers them."""

SOUND_WORDS = "|".join(_FORMS.values())
"""Regular expression for all forms of all names; compile with IGNORECASE."""

SOUND_PATTERN = rf"\(\s*(?:{SOUND_WORDS})\s*\)"
"""Regular expression for a sound in parentheses, for Python and JavaScript; compile with IGNORECASE."""

SOUND = re.compile(SOUND_PATTERN, re.IGNORECASE)


def sound_name(words: str) -> str | None:
    """Return the usual name of the sound that `words` name in any form, None if they name none."""
    return next((name for name, form in _FORMS.items() if re.fullmatch(form, words, re.IGNORECASE)), None)
