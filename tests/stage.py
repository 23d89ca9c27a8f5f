"""A server with five voices, whose model records what each of them is to say."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec

from dia_server.engine.types import Model, Utterance
from dia_server.settings import Settings
from tests.job_client import Client, serving
from tests.recordings import wav_file

VOICES = {"anna": 150.0, "ben": 100.0, "cleo": 200.0, "dan": 120.0, "eve": 240.0}
"""Voices with recordings, and the pitches of these in Hz."""
TAG = re.compile(r"\[(S[12])\] ")


class Seeing(Model, Protocol):
    """A model that records the utterances it has admitted."""

    seen: list[Utterance]


class Stage:
    """A server with the voices VOICES, whose model records what it is to say."""

    def __init__(self, client: Client, model: Seeing, digests: dict[str, str]) -> None:
        self.client = client
        self.model = model
        self.digests = digests
        """Digests of the recordings, by voice."""

    async def plan(self, text: str, **fields: Any) -> list[tuple[str, dict[str, str]]]:
        """Return text and voices of the segments."""
        answer = await self.client.post("/plan", json={"text": text} | fields)
        assert answer.status_code == 200, answer.text
        return [(one["text"], one["voices"]) for one in answer.json()["utterances"]]

    async def said(self, text: str, **fields: Any) -> list[tuple[str, str]]:
        """Generate `text`; return the voice and the words of each turn, each voice by its recording."""
        self.model.seen.clear()
        answer = await self.client.post("/generate", json={"text": text} | fields)
        assert answer.status_code == 200, answer.text
        return self.turns()

    def turns(self) -> list[tuple[str, str]]:
        """Return the voice and the words of each turn that the model has said, each voice by its recording.

        A segment has the prompts of its own voices only, and each has the tag of its voice.
        """
        voices = {digest: voice for voice, digest in self.digests.items()}
        found: list[tuple[str, str]] = []
        for utterance in self.model.seen:
            assert utterance.prompt is not None
            tags = TAG.findall(utterance.prompt.transcript)
            recordings = [part.digest for part in utterance.prompt.parts if part.digest in voices]
            cast = {tag: voices[digest] for tag, digest in zip(tags, recordings, strict=True)}
            assert utterance.voice == "+".join(cast.values())
            _, *parts = TAG.split(utterance.text)
            for tag, words in zip(parts[::2], parts[1::2], strict=True):
                found.append((cast[tag], words.removesuffix(f" [{'S1' if tag == 'S2' else 'S2'}]").strip()))
        return found

    async def refusal(self, text: str, **fields: Any) -> tuple[int, str, str, str]:
        answer = await self.client.post("/generate", json={"text": text} | fields)
        body = answer.json()
        assert not self.model.seen
        return answer.status_code, body["error_code"], body["param"], body["detail"]


@asynccontextmanager
async def staged(settings: Settings, model: Seeing) -> AsyncIterator[Stage]:
    """Yield the stage of a server whose engine is Dia with `model`, without guard and anchors."""
    settings = msgspec.structs.replace(settings, voice_anchors="off", guard_retries=0)
    async with serving(settings, model, engine="dia") as client:
        digests = {}
        for voice, pitch in VOICES.items():
            answer = await client.post(
                "/audio_prompts/upload",
                data={"prompt_id": voice, "transcript": f"I am {voice}."},
                files={"audio_file": ("sample.wav", wav_file(1.0, pitch=pitch))},
            )
            assert answer.status_code == 200, answer.text
            body = {"voice_id": voice, "audio_prompt": voice}
            assert (await client.post("/voice_mappings", json=body)).status_code == 200
            await client.post("/generate", json={"text": "Hello.", "voice_id": voice})
            prompt = model.seen[-1].prompt
            assert prompt is not None
            digests[voice] = prompt.key
        assert len(set(digests.values())) == len(VOICES)
        model.seen.clear()
        yield Stage(client, model, digests)
