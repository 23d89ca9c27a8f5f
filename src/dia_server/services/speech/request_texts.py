"""Takes the texts of requests in: checks their length, cleans them, and respells words.

A request can turn the clean-up off, but not the pronunciations, which the operator wants for these words.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Literal

from dia_server.errors import TextTooLong
from dia_server.services.speech.dialogue import cleaned_turns
from dia_server.services.speech.request import SpeechRequest
from dia_server.services.voices.pronunciations import PronunciationStore
from dia_server.text.budget import MAX_COLUMNS
from dia_server.text.clean import clean
from dia_server.text.clean.case import fold_mixed_case
from dia_server.text.pronunciation import Respelled, respell
from dia_server.text.script import tag_script
from dia_server.text.speakers import one_line

CodeBlocks = Literal["skip", "announce"]
ANNOUNCEMENT = "Code block."
"""What is said in place of a code block that is announced."""
LONG = 1000
"""Characters above which a text is cleaned and planned on a thread: 4,096 characters may take 50 ms each."""


@dataclass(frozen=True, slots=True)
class RequestTexts:
    pronunciations: PronunciationStore
    _: KW_ONLY
    max_characters: int
    """Maximum characters of a text as the client sends it."""
    normalize: bool = True
    """Whether a text is cleaned if its request does not say."""
    code_blocks: CodeBlocks = "skip"
    max_columns: int = MAX_COLUMNS
    """Decoder columns of a slot, into which a voice prompt and a segment have to fit."""

    def normalizes(self, request: SpeechRequest) -> bool:
        """Return whether the text of `request` is cleaned."""
        return self.normalize if request.normalize is None else request.normalize

    async def cleaned(self, request: SpeechRequest) -> str:
        """Return the text of `request`, a script with voice tags, cleaned unless it says otherwise.

        Raises TextTooLong.
        """
        text = request.text
        if len(text) > self.max_characters:
            raise TextTooLong(
                f"The text has {len(text)} characters; the limit is {self.max_characters}",
                param="text",
                limit=self.max_characters,
            )
        text = tag_script(text, request.cast or {})
        if not self.normalizes(request):
            return text
        code = ANNOUNCEMENT if self.code_blocks == "announce" else ""
        cleaned = partial(clean, text, code=code)
        if request.turn_by_turn:  # on a thread: each turn takes a millisecond
            return await asyncio.to_thread(cleaned_turns, text, partial(clean, code=code))
        return await asyncio.to_thread(cleaned) if len(text) > LONG else cleaned()

    async def respelled(
        self, cleaned: str, voices: Mapping[str, str], first: str, *, fold_case: bool
    ) -> Respelled:
        """Return a text as it will be said, with the pronunciations of its voices.

        `voices` maps what the tags call to voice ids; `first` says the text before the first tag. `fold_case`
        then folds mixed case, which espeak-ng spells letter by letter.
        """
        tables = {one: self.pronunciations.tables(voice_id) for one, voice_id in voices.items()}

        def work() -> Respelled:
            line = one_line(cleaned)  # as the tags of `voices` were found
            found = respell(line, tables, first) if any(tables.values()) else Respelled(line)
            said = replace(found, text=fold_mixed_case(found.text)) if fold_case else found
            return Respelled(cleaned) if said == Respelled(line) else said

        return await asyncio.to_thread(work) if len(cleaned) > LONG else work()
