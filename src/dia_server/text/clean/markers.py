"""Spans of a text that cleaning keeps as they are, each replaced by one character meanwhile."""

import re

ASTERISK, UNDERSCORE, BRACKET = "\ue001", "\ue002", "\ue003"
"""Stand for an asterisk or underscore that is part of a word, and for a bracket that opens no link."""
_LITERALS = str.maketrans({ASTERISK: "*", UNDERSCORE: "_", BRACKET: "["})
_FIRST = 0xF0000
"""First code point of the plane of private-use characters that stand for spans."""
_MARKER = re.compile(r"[\U000f0000-\U000ffffd]")
PRIVATE = re.compile(r"[\ue000-\uf8ff\U000f0000-\U0010ffff]+")
"""Run of private-use characters, which have no sound. A client's own are removed: none may be a marker."""


class Markers:
    """Spans that were taken out of one text; equal spans share a marker.

    Regular expressions and the Markdown parser treat a marker as a symbol that has no meaning to them.
    """

    def __init__(self) -> None:
        self._markers: dict[str, str] = {}
        self._spans: dict[str, str] = {}

    def keep(self, span: str) -> str:
        """Return the marker of `span`."""
        if span not in self._markers:
            marker = chr(_FIRST + len(self._markers))
            self._markers[span], self._spans[marker] = marker, span
        return self._markers[span]

    def restore(self, text: str) -> str:
        """Return `text` with the spans in the places of their markers."""
        return _MARKER.sub(lambda match: self._spans.get(match[0], ""), text.translate(_LITERALS))
