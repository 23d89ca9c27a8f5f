"""A play of five voices and 40 turns, over HTTP: on the preview, and on a small random Dia."""

import base64
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dia_server.engine.dia.codec import Codec
from dia_server.engine.dia.model import DiaModel
from dia_server.engine.types import Utterance
from dia_server.settings import Settings
from tests.engine.dia.drive import weights_of
from tests.engine.dia.tiny import tiny_dac, tiny_dia
from tests.job_client import Client
from tests.sounds import onsets
from tests.stage import VOICES, staged

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
TURNS = 40
STEPS = 60
"""Steps of an utterance of Dia, whose random weights never end one."""

Play = list[tuple[str, str]]
"""Voice and words of each turn."""


def play(voices: Sequence[str]) -> Play:
    """Return turns of changing voices; the words of no two are equal."""
    chance = random.Random(5)
    said: Play = []
    for number in range(TURNS):
        others = [voice for voice in voices if not said or voice != said[-1][0]]
        tens, ones = divmod(number, 10)
        said.append((chance.choice(others), f"Scene {NUMBERS[tens]} and line {NUMBERS[ones]} are mine."))
    assert {voice for voice, _ in said} == {*voices}
    return said


async def perform(client: Client, wanted: Play, **fields: Any) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """Return the samples and the timestamps of a play."""
    inputs = [{"text": words, "voice_id": voice} for voice, words in wanted]
    body = {"inputs": inputs, "response_format": "wav"} | fields
    answer = await client.post("/v1/text-to-dialogue", json=body)
    assert answer.status_code == 200, answer.text
    audio = base64.b64decode(answer.json()["audio"])
    return np.frombuffer(audio[44:], np.int16).astype(np.float32) / 32768, answer.json()["timestamps"]


def check_times(samples: np.ndarray[Any, Any], timestamps: list[Any]) -> None:
    """Check that each timestamp begins and ends with a sound, and that they leave out none."""
    sounds = onsets(samples)
    for one in timestamps:
        assert min(abs(start - one["start"]) for start, _ in sounds) < 0.06
        assert min(abs(end - one["end"]) for _, end in sounds) < 0.06
    inside = [[one for one in timestamps if one["start"] - 0.06 < start < one["end"]] for start, _ in sounds]
    assert all(len(found) == 1 for found in inside)


async def test_a_play_on_the_preview(client: Client) -> None:
    wanted = play(["aria", "atlas", "luna", "kai", "zara"])

    samples, timestamps = await perform(client, wanted, timestamps="turn")

    assert [(one["voice"], one["text"]) for one in timestamps] == wanted
    speakers = {one["speaker"]: one["voice"] for one in timestamps}
    assert sorted(speakers) == ["S1", "S2", "S3", "S4", "S5"]
    assert len({*speakers.values()}) == 5
    assert len(onsets(samples)) >= TURNS
    check_times(samples, timestamps)


class SeenDia(DiaModel):
    """Records its utterances, and ends each after STEPS."""

    def __init__(self) -> None:
        super().__init__(weights_of(tiny_dia(ends=False)), Codec(tiny_dac()), 4)
        self.seen: list[Utterance] = []

    def admit(self, slot: int, utterance: Utterance) -> None:
        self.seen.append(utterance)
        super().admit(slot, replace(utterance, max_tokens=STEPS))


@pytest.mark.full
async def test_a_play_on_dia(settings: Settings) -> None:
    wanted = play([*VOICES])
    order = dict.fromkeys(voice for voice, _ in wanted)
    voices = {f"S{number}": voice for number, voice in enumerate(order, 1)}
    async with staged(settings, SeenDia()) as stage:
        samples, timestamps = await perform(
            stage.client, wanted, timestamps="segment", normalize_loudness=False
        )

        assert stage.turns() == wanted
        assert len(timestamps) == len(stage.model.seen) == len(onsets(samples))
        told: Play = []
        for one in timestamps:
            text = one["text"] if one["speaker"] is None else f"[{one['speaker']}] {one['text']}"
            _, *parts = re.split(r" ?\[(S\d)\] ", text)
            told += [(voices[tag], words) for tag, words in zip(parts[::2], parts[1::2], strict=True)]
            assert one["voice"] == (told[-1][0] if len(parts) == 2 else None)
        assert told == wanted
        check_times(samples, timestamps)
