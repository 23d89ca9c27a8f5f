"""Takes the texts of requests in: checks their length, and cleans them unless the request says otherwise."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Literal

from dia_server.errors import TextTooLong
from dia_server.services.speech.request import SpeechRequest
from dia_server.text.clean import clean

CodeBlocks = Literal["skip", "announce"]
ANNOUNCEMENT = "Code block."
"""What is said in place of a code block that is announced."""
LONG = 1000
"""Characters above which a text is cleaned and planned on a thread: 4,096 characters may take 50 ms each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTexts:
    max_characters: int
    """Maximum characters of a text as the client sends it."""
    normalize: bool = True
    """Whether a text is cleaned if its request does not say."""
    code_blocks: CodeBlocks = "skip"

    def normalizes(self, request: SpeechRequest) -> bool:
        """Return whether the text of `request` is cleaned."""
        return self.normalize if request.normalize is None else request.normalize

    async def said(self, request: SpeechRequest, *, fold_case: bool) -> str:
        """Return the text of `request` as it will be said; raises TextTooLong.

        `fold_case` folds mixed case, which espeak-ng spells letter by letter.
        """
        text = request.text
        if len(text) > self.max_characters:
            raise TextTooLong(
                f"The text has {len(text)} characters; the limit is {self.max_characters}",
                param="text",
                limit=self.max_characters,
            )
        if not self.normalizes(request):
            return text
        code = ANNOUNCEMENT if self.code_blocks == "announce" else ""
        cleaned = partial(clean, text, code=code, fold_case=fold_case)
        return await asyncio.to_thread(cleaned) if len(text) > LONG else cleaned()
