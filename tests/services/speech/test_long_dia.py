"""Long texts on a small random Dia behind the whole speech service: noise, but reproducible."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import LongTensor

from dia_server.audio import wav
from dia_server.audio.encode import AudioFormat, Encoder
from dia_server.audio.join import Join
from dia_server.audio.prompt import make
from dia_server.configuration import default_config
from dia_server.db.engine import Database
from dia_server.engine.dia.codec import Codec
from dia_server.engine.dia.model import DiaModel
from dia_server.engine.dia.text import text_bytes
from dia_server.engine.dia.weights import Weights
from dia_server.engine.dia.windows import CONTEXT, FIRST_CHUNK
from dia_server.engine.engine import Engine
from dia_server.engine.types import Chunk, Frames, Samples, Utterance, VoicePrompt
from dia_server.services.config import ConfigService
from dia_server.services.speech.anchor_maker import SCRIPT, AnchorMaker, Mode
from dia_server.services.speech.narrator import Narrator
from dia_server.services.speech.preparation import RequestPreparer
from dia_server.services.speech.request import SpeechRequest
from dia_server.services.speech.request_texts import RequestTexts
from dia_server.services.speech.service import SpeechService
from dia_server.services.voices.anchor_folder import AnchorFolder
from dia_server.services.voices.anchors import AnchorStore
from dia_server.services.voices.prompt_folder import PromptFolder
from dia_server.services.voices.prompts import PromptService
from dia_server.services.voices.pronunciations import PronunciationStore
from dia_server.services.voices.reference_files import ReferenceFolder
from dia_server.services.voices.references import References
from dia_server.services.voices.service import Voice, VoiceService
from dia_server.services.voices.voice_prompts import PAUSE, VoicePrompts
from dia_server.services.voices.whisper import Whisper
from dia_server.settings import Settings
from dia_server.units import SAMPLE_RATE
from tests.engine.dia.drive import weights_of
from tests.engine.dia.tiny import tiny_dac, tiny_dia
from tests.prompts import generated_frames, recording_of
from tests.recordings import wav_file

SLOTS = 4
SEGMENTS = 5
LONG = " [pause:10ms] ".join(f"[S1] This is number {n}. [S2] I see." for n in range(SEGMENTS))
ALONE = " [pause:10ms] ".join(f"[S1] This is number {n}." for n in range(SEGMENTS))
VOICES = {"high": (1.2, "[S1] Up here."), "low": (1.5, "[S1] Down there.")}
"""Seconds of the recording, and its transcript."""
UNLIMITED = 10_000
STEPS = 44


class CountingCodec(Codec):
    def __init__(self) -> None:
        super().__init__(tiny_dac())
        self.encoded: list[Samples] = []

    def encode(self, samples: Samples) -> LongTensor:
        self.encoded.append(samples)
        return super().encode(samples)


class WatchedDia(DiaModel):
    """Records the utterances of each poll; a poll waits for a permit.

    Its random weights never end an utterance, so each ends after STEPS, as if complete.
    """

    def __init__(self, weights: Weights) -> None:
        self.codec = CountingCodec()
        super().__init__(weights, self.codec, SLOTS)
        self.seen: list[Utterance] = []
        self.together: list[list[Utterance]] = []
        """Utterances in the batch, by poll."""
        self.permits = threading.Semaphore(UNLIMITED)

    def admit(self, slot: int, utterance: Utterance) -> None:
        self.seen.append(utterance)
        super().admit(slot, replace(utterance, max_tokens=STEPS))

    def step(self) -> Mapping[int, Chunk | Exception]:
        self.permits.acquire()
        self.together.append([run.utterance for run in self._runs.values()])
        return super().step()


class Studio:
    """The speech service with the guard off, which would find faults in all noise, and its own loudness."""

    def __init__(self, folder: Path, weights: Weights, anchors: Mode = "off") -> None:
        conf = Settings(data_dir=str(folder))
        self.model = WatchedDia(weights)
        self.engine = Engine("dia", lambda _: self.model, max_waiting=64)
        self.database = Database(conf.sqlalchemy_url)
        self.anchors = AnchorStore(self.database.sessions, AnchorFolder(conf.anchors))
        pronunciations = PronunciationStore(self.database.sessions)
        self.voices = VoiceService(self.database.sessions, self.anchors, pronunciations)
        prompt_folder = PromptFolder(folder / "audio_prompts", make)
        self.prompts = PromptService(self.database.sessions, prompt_folder, self.voices)
        reference_folder = ReferenceFolder(conf.references)
        references = References(self.prompts, reference_folder, Whisper("none", idle_s=0))
        self.voice_prompts = VoicePrompts(self.prompts, prompt_folder, self.anchors, references)
        narrator = Narrator(self.engine, retries=0)
        preparer = RequestPreparer(
            narrator,
            self.voices,
            self.voice_prompts,
            AnchorMaker(narrator, self.anchors, mode=anchors, on_gpu=False, rounds=1, model=lambda: "tiny"),
            texts=RequestTexts(pronunciations, max_characters=4096, normalize=False),
            normalize_loudness=False,
        )
        config = ConfigService(self.database.sessions, default_config(conf))
        self.speech = SpeechService(narrator, preparer, config, lambda *_: None)

    async def open(self) -> None:
        await self.database.upgrade()
        await self.anchors.load()
        await self.voices.load()
        await self.prompts.load()
        await self.anchors.clean()
        await self.prompts.clean()
        for name, (seconds, transcript) in VOICES.items():
            recording = await self.prompts.add(name, io.BytesIO(wav_file(seconds)))
            await self.prompts.set_transcript(recording, transcript, "manual")
            await self.voices.save(Voice(name, audio_prompt=name))
        self.engine.start()
        while not self.engine.ready:
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        self.model.permits.release(UNLIMITED)
        await asyncio.to_thread(self.engine.stop)
        await self.database.close()

    async def recording(self, voice_id: str) -> Samples:
        prompts = await self.voice_prompts.load({"S1": self.voices.resolve(voice_id)})
        prompt = prompts.prompt({"S1": "S1"})
        assert prompt is not None
        return recording_of(prompt)

    async def stream(self, request: SpeechRequest) -> bytes:
        async with aclosing(await self.speech.stream(request, "")) as streamed:
            return b"".join([audio async for audio in streamed])

    async def frames(self, utterance: Utterance) -> Frames:
        async with self.engine.submit(utterance) as generation:
            (frames,) = [chunk.frames async for chunk in generation if chunk.frames is not None]
            return frames

    async def alone(self, utterance: Utterance) -> Samples:
        async with self.engine.submit(utterance) as generation:
            return np.concatenate([chunk.samples async for chunk in generation])


def ask(voice: str, text: str = LONG, *, seed: int = 7, audio_format: AudioFormat = "wav") -> SpeechRequest:
    """`voice` may name two voices, as "high+low"."""
    first, _, second = voice.partition("+")
    return SpeechRequest(
        text=text,
        voice_id=first,
        voice_id_2=second or None,
        response_format=audio_format,
        seed=seed,
    )


@pytest.fixture(scope="module")
def weights() -> Weights:
    return weights_of(tiny_dia(ends=False))


@asynccontextmanager
async def opened(folder: Path, weights: Weights, anchors: Mode = "off") -> AsyncIterator[Studio]:
    studio = Studio(folder, weights, anchors)
    await studio.open()
    try:
        yield studio
    finally:
        await studio.close()


@pytest.mark.parametrize(
    "voice", ["high", *(pytest.param(voice, marks=pytest.mark.full) for voice in ("aria", "high+low"))]
)
@pytest.mark.parametrize(
    ("audio_format", "chunks"), [("wav", 1), ("pcm", 1), ("flac", 1), ("opus", 1), ("mp3", 2), ("aac", 2)]
)
async def test_the_first_audio_leaves_after_29_steps_or_33(
    tmp_path: Path, weights: Weights, voice: str, audio_format: AudioFormat, chunks: int
) -> None:
    """The engine gets only the steps for it: audio that needed one more would never come.

    The codes of a frame are spread over 16 steps, and the next frame ends a step later. The first chunk has 4
    frames and needs 10 more: 29 steps. Two codecs need the second chunk of 4 frames, 2,048 samples each, of
    which the last 441 may be a fade.
    FFmpeg gives LAME frames of 1,152 samples, and LAME looks 1,904 ahead before the first leaves: two frames,
    2,304. Its AAC encoder keeps a frame of 1,024 until it has the next. No option changes either.
    """
    steps = chunks * FIRST_CHUNK + CONTEXT + weights.config.tail
    header = Encoder(audio_format, SAMPLE_RATE).push(np.zeros(0, np.float32))
    assert steps == {1: 29, 2: 33}[chunks]
    async with opened(tmp_path, weights) as studio:
        studio.model._steps_per_poll = 1
        studio.model.permits = threading.Semaphore(steps)

        async with asyncio.timeout(20):
            streamed = await studio.speech.stream(ask(voice, audio_format=audio_format), "")
            received = b""
            async for audio in streamed:
                received += audio
                if len(received) > len(header):
                    break

        assert studio.engine.work.steps == steps
        await streamed.aclose()


@pytest.mark.parametrize("voice", ["aria", "high+low", pytest.param("high", marks=pytest.mark.full)])
async def test_a_long_text_sounds_the_same_alone_and_among_others(
    tmp_path: Path, weights: Weights, voice: str
) -> None:
    async with opened(tmp_path, weights) as studio:
        alone = await studio.stream(ask(voice))
        studio.model.together.clear()

        others = [
            asyncio.create_task(studio.stream(ask(other, "[S1] Another one. " * 20, seed=seed)))
            for seed, other in enumerate(["aria", "low", "luna"])  # one slot is left for the text
        ]
        among, *responses = await asyncio.gather(studio.stream(ask(voice)), *others)

    assert among == alone
    assert len({alone, *responses}) == 1 + len(others)
    assert any({7} < {utterance.seed for utterance in batch} for batch in studio.model.together)


@pytest.mark.parametrize("voice", ["aria", "high+low", pytest.param("high", marks=pytest.mark.full)])
async def test_segments_run_side_by_side_and_come_out_in_order(
    tmp_path: Path, weights: Weights, voice: str
) -> None:
    async with opened(tmp_path, weights) as studio:
        plan = (await studio.speech.prepare(ask(voice))).plan
        told = await studio.stream(ask(voice))
        batches, segments = list(studio.model.together), sorted(studio.model.seen, key=lambda one: one.text)

        assert len(segments) == len(plan.utterances) == SEGMENTS
        assert max(map(len, batches)) == SLOTS
        if voice != "high+low":  # the others wait for the first, which gives them the voice of [S2]
            assert all(len(batch) == 1 for batch in batches if segments[0] in batch)

        join, parts = Join(SAMPLE_RATE), []
        for planned, utterance in zip(plan.utterances, segments, strict=True):
            parts.append(join.begin(planned.pause_s + planned.gap_s))
            parts.append(join.push(await studio.alone(utterance)))
        parts.append(join.finish())
    assert told[wav.HEADER_LENGTH :] == wav.pcm16(np.concatenate(parts))


async def test_a_voices_recording_is_encoded_once(tmp_path: Path, weights: Weights) -> None:
    async with opened(tmp_path, weights) as studio:
        await studio.stream(ask("high", ALONE))
        await studio.stream(ask("high", ALONE, seed=8))

        assert len(studio.model.seen) == 2 * SEGMENTS
        (encoded,) = studio.model.codec.encoded
        np.testing.assert_array_equal(encoded, await studio.recording("high"))


def prompts_of(others: Sequence[Utterance]) -> list[VoicePrompt]:
    """Return the audio prompts of all segments but the first."""
    prompts = [other.prompt for other in others if other.prompt is not None]
    assert len(prompts) == len(others) == SEGMENTS - 1
    return prompts


async def test_the_first_segments_frames_are_the_prompt_of_all_others(
    tmp_path: Path, weights: Weights
) -> None:
    async with opened(tmp_path, weights) as studio:
        await studio.stream(ask("aria"))

        first, *others = studio.model.seen
        frames = await studio.frames(first)
        assert studio.model.codec.encoded == []
        for prompt in prompts_of(others):
            np.testing.assert_array_equal(generated_frames(prompt), frames)
            assert prompt.transcript == "[S1] This is number 0. [S2] I see."


async def test_a_first_segment_gives_the_others_the_voice_missing_in_the_recording(
    tmp_path: Path, weights: Weights
) -> None:
    async with opened(tmp_path, weights) as studio:
        await studio.stream(ask("high"))

        first, *others = studio.model.seen
        frames = await studio.frames(first)
        (recording,) = studio.model.codec.encoded
        np.testing.assert_array_equal(recording, await studio.recording("high"))
        for prompt in prompts_of(others):
            assert recording_of(prompt) is recording
            np.testing.assert_array_equal(generated_frames(prompt), frames)
            assert prompt.transcript == "[S1] Up here. [S1] This is number 0. [S2] I see."


async def test_two_voices_speak_after_both_transcripts_and_recordings(
    tmp_path: Path, weights: Weights
) -> None:
    async with opened(tmp_path, weights) as studio:
        await studio.stream(ask("high+low"))

        recordings = [await studio.recording("high"), PAUSE.samples, await studio.recording("low")]
        for encoded, recording in zip(studio.model.codec.encoded, recordings, strict=True):
            np.testing.assert_array_equal(encoded, recording)
        segments = sorted(studio.model.seen, key=lambda one: one.text)
        for n, utterance in enumerate(segments):
            read = text_bytes(utterance, weights.config.encoder.positions).decode()
            said = read.replace("\x01", "[S1]").replace("\x02", "[S2]")
            assert said.startswith(f"[S1] Up here. [S2] Down there. [S1] This is number {n}. [S2] I see.")


async def test_a_voice_has_the_same_codes_in_each_text_and_after_a_restart(
    tmp_path: Path, weights: Weights
) -> None:
    keys, audio = set(), []
    for _ in range(2):
        async with opened(tmp_path, weights, "on-demand") as studio:
            audio.append([await studio.stream(ask("aria", f"[S1] Text {n}.")) for n in range(5)])
            keys |= {one.prompt.key for one in studio.model.seen if one.prompt}
            made = [one for one in studio.model.seen if SCRIPT in one.text]
            await studio.stream(ask("aria", "[S1] So? [S2] So!"))
            (aria,) = keys
            dialogue = studio.model.seen[-1].prompt
            assert studio.model.codec.encoded == [] or len(studio.model.codec.encoded[0]) == len(
                PAUSE.samples
            )
            assert dialogue is not None
            assert dialogue.parts[0].digest == aria
            assert dialogue.parts[-1].digest != aria

    assert audio[0] == audio[1]
    assert made == []
