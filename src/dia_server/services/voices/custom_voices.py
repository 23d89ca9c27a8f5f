"""Voices made of a recording in one step, as OpenAI's API has them: the voice and its audio prompt."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import BinaryIO

from dia_server.errors import Conflict, Invalid
from dia_server.services.voices import prompt_folder
from dia_server.services.voices.audio_prompt import Prompt
from dia_server.services.voices.ids import MAX_LENGTH
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.service import Voice, VoiceService, clean_name

HASH_LENGTH = 8
"""Hexadecimal digits that tell apart ids of names with other letters than ASCII's: 32 bits."""


@dataclass(frozen=True, slots=True)
class CustomVoice:
    voice: Voice
    prompt: Prompt


class CustomVoices:
    def __init__(self, prompts: PromptService, voices: VoiceService) -> None:
        self._prompts = prompts
        self._voices = voices

    async def create(self, name: str, file: BinaryIO, *, transcript: str | None, consent: str) -> CustomVoice:
        """Create a voice called `name` and its audio prompt, or neither of them; both have the same id.

        Raises Invalid, UnusableAudio, NativeUnavailable or StorageUnavailable; Conflict if the id derived
        from the name is taken.
        """
        name = clean_name(name, "name")
        voice_id = id_from_name(name)
        voice = Voice(voice_id, audio_prompt=voice_id, display_name=name)
        try:
            self._voices.require_new(voice_id)  # before the decoding, and again when the voice is added
            prompt = await self._prompts.create(
                voice_id, file, transcript, consent=consent, adding=self._voices.adding(voice)
            )
        except Conflict as error:
            raise Conflict(str(error), param="name") from error
        return CustomVoice(voice, prompt)

    async def delete(self, voice_id: str) -> None:
        """Delete a voice; also its recording, if `create` made it and no other voice uses it.

        Raises InvalidVoiceId or StorageUnavailable; Conflict if the voice is built in.
        """
        self._voices.require_deletable(voice_id)
        prompt = self._prompts.all.get(self._voices.all[voice_id].audio_prompt or "")
        if prompt is None or prompt.consent is None or self._prompts.users(prompt.prompt_id) != [voice_id]:
            await self._voices.delete(voice_id)
        else:
            await self._prompts.delete_with_voice(prompt.prompt_id, voice_id)


def id_from_name(name: str) -> str:
    """Return the id of a voice called `name`: the name if it is an id, else its ASCII letters and digits.

    The id ends in a part of the name's SHA-256 if the name has other letters (not counting accents), has no
    letters or digits, is too long, or is reserved.
    """
    if _is_usable(name):
        return name
    folded = unicodedata.normalize("NFKD", name.casefold())
    slug = re.sub(r"[^a-z0-9]+", "-", folded.encode("ascii", "ignore").decode()).strip("-")
    if all(character.isascii() for character in folded if character.isalnum()) and _is_usable(slug):
        return slug
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode()).hexdigest()[:HASH_LENGTH]
    return f"{slug[: MAX_LENGTH - HASH_LENGTH - 1].strip('-') or 'voice'}-{digest}"


def _is_usable(prompt_id: str) -> bool:
    try:
        prompt_folder.check_id(prompt_id)
    except Invalid:
        return False
    return True
