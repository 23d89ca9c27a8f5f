"""Says which voice speaks for each speaker of a text."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from unicodedata import normalize

from dia_server.errors import Invalid, InvalidVoiceId
from dia_server.services.speech.request import SpeechRequest
from dia_server.services.voices.service import CastSnapshot, VoiceSnapshot
from dia_server.text.speakers import called, heard

MAX_VOICES = 16
"""Maximum voices of a text."""
PLAIN = ("S1", "S2")
"""Speakers for whom the request's voice and its partner speak, unless the request names others."""
VOICE = "voice:"
"""Beginning of a tag that names a voice."""


@dataclass(frozen=True, slots=True)
class Casting:
    """The voices of a text."""

    cast: Mapping[str, VoiceSnapshot]
    """The voice of each speaker, in the order of the speakers; no two of those that tags call are equal."""
    names: Mapping[str, str]
    """Speakers by what the tags of the text call, where the two differ."""


def call(
    request: SpeechRequest, voices: CastSnapshot, text: str, find: Callable[[str], VoiceSnapshot]
) -> CastSnapshot:
    """Return `voices` with those that the tags of `text` call; `find` returns a voice by its id.

    Raises InvalidVoiceId if a voice does not exist, also one that the text does not use, or Invalid for the
    tag of a speaker without a voice, and for a name that has two voices.
    """
    named = _single("voices", ((name.upper(), one) for name, one in (request.voices or {}).items()))
    _single(
        "cast",
        ((normalize("NFC", name.strip()).casefold(), one) for name, one in (request.cast or {}).items()),
    )
    found = {**voices.called}
    for speaker, voice_id in named.items():
        if speaker not in found:
            with _naming("voices", f"voices.{speaker}"):
                found[speaker] = find(voice_id)
    for name, voice_id in (request.cast or {}).items():
        if VOICE + voice_id.strip() not in found:
            with _naming("cast", f"cast.{name}"):
                found[VOICE + voice_id.strip()] = find(voice_id)
    for one in called(text):
        if one.startswith(VOICE) and one not in found:
            with _naming("text", f"[{one}]"):
                found[one] = find(one.removeprefix(VOICE))
        elif one not in found and one not in PLAIN:
            raise Invalid(
                f'voices: [{one}] has no voice; name one, for example {{"{one}": "luna"}}', param="voices"
            )
    return replace(voices, called=found)


def cast_of(request: SpeechRequest, voices: CastSnapshot, text: str) -> Casting:
    """Return who speaks in tagged `text`; raises Invalid above MAX_VOICES.

    A voice that a tag calls is one speaker, whatever tags call it. It is the speaker of its tag, else the
    first of S1, S2, S3, ... that has no tag.
    """
    tags = heard(text, {})
    plain = sorted(tag for tag in tags if tag in PLAIN and tag not in voices.called)
    cast = _plain_cast(request, voices, plain) if plain or not tags else {}
    free = (speaker for number in count(1) if (speaker := f"S{number}") not in tags)
    names = {}
    for tag in tags:
        if tag not in plain:
            voice = voices.called[tag]
            same = (speaker for speaker, one in cast.items() if one.voice_id == voice.voice_id)
            speaker = next(same, None) or (next(free) if tag.startswith(VOICE) else tag)
            cast.setdefault(speaker, voice)
            names[tag] = speaker
    if len(cast) > MAX_VOICES:
        raise Invalid(
            f"The text has {len(cast)} voices; the limit is {MAX_VOICES}", param="text", limit=MAX_VOICES
        )
    return Casting(dict(sorted(cast.items(), key=lambda item: int(item[0][1:]))), names)


def _plain_cast(
    request: SpeechRequest, voices: CastSnapshot, plain: Sequence[str]
) -> dict[str, VoiceSnapshot]:
    """Return the voices of the speakers S1 and S2, as far as the text has them.

    With a second voice chosen by the client, the request's voice is S1. Otherwise it speaks alone as
    whichever of them the text has; in a text with both, it is its primary speaker, and its partner is the
    other one.
    """
    voice, partner = voices.voice, voices.partner
    chosen = request.voice_id_2 is not None
    primary = "S1" if chosen else voice.primary_speaker
    if partner is None or not (chosen or len(plain) > 1):
        return {plain[0] if len(plain) == 1 else primary: voice}
    return {speaker: voice if speaker == primary else partner for speaker in plain}


def _single(field: str, voices: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return voice ids by names; raises Invalid for the request field `field` if a name has two of them."""
    found: dict[str, str] = {}
    for name, voice_id in voices:
        if found.setdefault(name, voice_id) != voice_id:
            raise Invalid(f"{field}: {name} has two voices; names match in any case", param=field)
    return found


@contextmanager
def _naming(field: str, where: str) -> Iterator[None]:
    """Name the request field, and the place in it, in an InvalidVoiceId that the `with` block raises."""
    try:
        yield
    except InvalidVoiceId as error:
        raise InvalidVoiceId(f"{where}: {error}", param=field) from error
