"""Voices of a running server, over HTTP. Only the standard library is used, as in bench.py."""

import http.client
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit
from uuid import uuid4

import msgspec

from dia_server.voice_tools.tables import VoiceLine, sound_of
from dia_server.web.schemas import Candidate, Candidates, VoiceMapping, Voices, VoicesImported

TIMEOUT_S = 120.0
PROBE_S = 2.0
"""Maximum seconds for a server on this machine to say that it lives."""
POLL_S = 0.5
"""Seconds between looks at unfinished candidates."""

T = TypeVar("T")


class VoiceToolError(Exception):
    """The command failed; the message gives the reason."""


class _Failure(msgspec.Struct):
    detail: str


class Remote:
    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._key = key

    def answers(self) -> bool:
        """Return whether a dia-server answers at the URL."""
        try:
            status, body = self._send("GET", "/health/live", timeout_s=PROBE_S)
        except VoiceToolError:
            return False
        return status == 200 and b'"alive"' in body

    def voices(self) -> list[VoiceLine]:
        voices = self._get("/voices", Voices).voices
        mappings = self._get("/voice_mappings", dict[str, VoiceMapping])
        lines = []
        for voice in voices:
            mapping, anchor = mappings[voice.voice_id], voice.anchor or None
            sound = sound_of(mapping.audio_prompt, anchor)
            lines.append(VoiceLine(voice.voice_id, voice.name, mapping.style, sound))
        return lines

    def make(
        self, voice_id: str, *, count: int, seed: int | None, style: str | None, text: str | None
    ) -> Sequence[Candidate]:
        """Make candidates and wait for them; return them, the most promising first."""
        path = f"/voices/{quote(voice_id, safe='')}/candidates"
        wish = {"count": count, "seed": seed, "style": style, "text": text}
        self._json("POST", path, wish, Candidates)
        while True:
            candidates = self._get(path, Candidates).candidates
            if not any(one.status == "pending" or one.checking for one in candidates):
                return candidates
            time.sleep(POLL_S)

    def keep(self, voice_id: str, candidate_id: str) -> None:
        path = f"/voices/{quote(voice_id, safe='')}/anchor"
        self._json("POST", path, {"candidate_id": candidate_id}, object)

    def export(self, voice_ids: Sequence[str], file: Path, licence: str | None) -> None:
        query = [("voice_id", voice_id) for voice_id in voice_ids]
        if licence is not None:
            query.append(("licence", licence))
        file.write_bytes(self._done(*self._send("GET", f"/voices/export?{urlencode(query)}")))

    def add(self, file: Path, *, replace: bool) -> list[str]:
        """Import an archive; return the ids of its voices."""
        boundary = uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="voices.zip"\r\n\r\n'
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        path = f"/voices/import?replace={str(replace).lower()}"
        answer = self._done(*self._send("POST", path, body, kind))
        return msgspec.json.decode(answer, type=VoicesImported).voices

    def _get(self, path: str, kind: type[T]) -> T:
        return msgspec.json.decode(self._done(*self._send("GET", path)), type=kind)

    def _json(self, method: str, path: str, body: object, kind: type[T]) -> T:
        answer = self._send(method, path, msgspec.json.encode(body), "application/json")
        return msgspec.json.decode(self._done(*answer), type=kind)

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "",
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> tuple[int, bytes]:
        """Return the status and the body of an answer; raises VoiceToolError if none comes."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=timeout_s)
        headers = {"Content-Type": kind} if body is not None else {}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise VoiceToolError(f"No answer from {self.url}: {error or type(error).__name__}") from None
        finally:
            connection.close()

    @staticmethod
    def _done(status: int, body: bytes) -> bytes:
        """Return the body of an answer; raises VoiceToolError if it is an error."""
        if status < 400:
            return body
        try:
            detail = msgspec.json.decode(body, type=_Failure).detail
        except msgspec.DecodeError:
            detail = body.decode(errors="replace")[:200]
        raise VoiceToolError(f"{detail} (status {status})")
