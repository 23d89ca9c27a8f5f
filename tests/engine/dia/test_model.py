"""The model's output for an utterance, independent of other utterances and of failures."""

import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from dia_server.engine.dia import decoder as step_module
from dia_server.engine.dia import model as model_module
from dia_server.engine.dia.audio_decoder import GROW_AFTER, AudioDecoder
from dia_server.engine.dia.background_stream import BackgroundStream
from dia_server.engine.dia.codec import Codec
from dia_server.engine.dia.model import CODEC_NOT_CAPTURED, STEPS_PER_POLL, AudioCodec, DiaModel, ModelOptions
from dia_server.engine.dia.poll import Poll
from dia_server.engine.dia.prefill import prefill
from dia_server.engine.dia.run import Run
from dia_server.engine.dia.state import State
from dia_server.engine.dia.step_ops import KernelOps, MakeOps, PlainOps
from dia_server.engine.dia.step_runners import NOT_CAPTURED, NOT_FUSED, EagerRunner, Step, capturable_steps
from dia_server.engine.dia.weights import Weights
from dia_server.engine.dia.windows import Window
from dia_server.engine.types import Chunk, GeneratedAudio, Samples, Utterance
from dia_server.errors import GpuOutOfMemory, Invalid, ServerError, TextTooLong

from .drive import CodesAsAudio, audio_of, drive, frames_of, prompt_of, weights_of
from .tiny import tiny_dac, tiny_dia


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Weights of one layer, for what concerns utterances and slots rather than layers."""
    return weights_of(tiny_dia(layers=1, ends=False))


@pytest.fixture(scope="module")
def layered_weights() -> Weights:
    return weights_of(tiny_dia(layers=2, ends=False))


def utterance(seed: int, *, tokens: int = 40, prompt: int = 0) -> Utterance:
    frames = torch.randint(0, 1024, (prompt, 9), generator=torch.Generator().manual_seed(seed))
    return Utterance(
        text=f"[S1] This is utterance {seed}." + "!" * seed,
        voice="",
        seed=seed,
        max_tokens=tokens,
        prompt=prompt_of(frames, "[S1] So it goes.") if prompt else None,
    )


def steps(model: DiaModel, count: int) -> list[Chunk | Exception]:
    """Return the outcomes of slot 0 in `count` polls."""
    return [outcomes[0] for outcomes in (model.step() for _ in range(count)) if 0 in outcomes]


@pytest.mark.parametrize("prompt", [0, 30])
def test_audio_does_not_depend_on_mates_slot_order_or_poll(layered_weights: Weights, prompt: int) -> None:
    asked = [utterance(seed, tokens=30 + 5 * seed, prompt=prompt) for seed in range(6)]
    alone = [frames_of(drive(DiaModel(layered_weights, CodesAsAudio(), 1), [one])[0]) for one in asked]
    assert len({tuple(frames.flatten().tolist()) for frames in alone}) == len(asked)
    for slots, steps, arrivals in [(6, 4, None), (3, 1, [0, 1, 5, 9, 9, 20]), (4, 7, [5, 4, 3, 2, 1, 0])]:
        together = drive(
            DiaModel(layered_weights, CodesAsAudio(), slots, ModelOptions(steps_per_poll=steps)),
            asked,
            arrivals,
        )
        for chunks, frames in zip(together, alone, strict=True):
            assert torch.equal(frames_of(chunks), frames)


def test_another_seed_gives_another_voice(weights: Weights) -> None:
    asked = [utterance(1), replace(utterance(1), seed=2)]
    first, second = drive(DiaModel(weights, CodesAsAudio(), 2), asked)
    assert not torch.equal(frames_of(first), frames_of(second))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_streamed_audio_equals_the_whole_decode(weights: Weights, dtype: torch.dtype) -> None:
    asked = [utterance(seed, tokens=90 + 20 * seed, prompt=20 * (seed % 2)) for seed in range(3)]
    codes = drive(DiaModel(weights, CodesAsAudio(), 3), asked)
    dac = tiny_dac()
    dac.to(dtype)

    class Speaking(CodesAsAudio):
        def decode(self, windows: Sequence[Window]) -> list[Samples]:
            return Codec(dac).decode(windows)

    for chunks, made in zip(drive(DiaModel(weights, Speaking(), 3), asked), codes, strict=True):
        assert len(chunks) > 3
        assert len(chunks[0].samples) == 4 * 512
        frames = frames_of(made)
        whole = dac.decode(audio_codes=frames.T[None]).audio_values[0].numpy()
        error = np.abs(audio_of(chunks) - whole.astype(np.float32))
        if dtype == torch.float64:
            assert error.max() == 0.0
        else:
            assert 20 * np.log10(np.abs(whole).max() / max(error.max(), 1e-30)) >= 70


def test_the_first_chunk_comes_after_29_steps(weights: Weights) -> None:
    model = DiaModel(weights, CodesAsAudio(), 1, ModelOptions(steps_per_poll=1))
    model.admit(0, utterance(0, tokens=60))
    assert steps(model, 28) == []
    (chunk,) = steps(model, 1)
    assert isinstance(chunk, Chunk)
    assert (len(chunk.samples), chunk.tokens) == (4 * 9, 29)


@pytest.mark.parametrize("background", [False, True])
def test_first_windows_do_not_wait_for_the_windows_of_other_streams(
    weights: Weights, background: bool
) -> None:
    class Listed(CodesAsAudio):
        def __init__(self) -> None:
            self.calls: list[list[bool]] = []
            """For each window of each call, whether it is the first of its utterance."""

        def decode(self, windows: Sequence[Window]) -> list[Samples]:
            self.calls.append([not window.left for window in windows])
            return super().decode(windows)

    asked = [utterance(seed, tokens=60) for seed in range(4)]
    alone = [frames_of(drive(DiaModel(weights, CodesAsAudio(), 1), [one])[0]) for one in asked]
    model = DiaModel(weights, codec := Listed(), 4)
    if background:
        model._audio_decoder._background = BackgroundStream(torch.device("cpu"), "codec")  # as on CUDA

    made = drive(model, asked, range(4))

    assert all(len(set(call)) == 1 for call in codec.calls)
    assert sum(call[0] * len(call) for call in codec.calls) == 4
    for chunks, frames in zip(made, alone, strict=True):
        assert torch.equal(frames_of(chunks), frames)
    model.close()


class Unhurried(Future[None]):
    """A poll's copy that has not arrived until its result is set; waiting for it alone fails."""

    def result(self, timeout: float | None = None) -> None:
        assert self.done()
        super().result(timeout)


def test_audio_does_not_wait_for_the_poll(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    may_decode = threading.Event()
    pending: list[Unhurried] = []

    class Slow(CodesAsAudio):
        def decode(self, windows: Sequence[Window]) -> list[Samples]:
            assert may_decode.wait(20)
            return super().decode(windows)

    def watch(poll: Poll, thread: ThreadPoolExecutor) -> None:
        poll._arrived = Unhurried()
        if model._audio_decoder.running is None:
            poll._arrived.set_result(None)
        else:
            pending.append(poll._arrived)

    asked = utterance(0)
    alone = frames_of(drive(DiaModel(weights, CodesAsAudio(), 1), [asked])[0])
    monkeypatch.setattr(Poll, "watch", watch)
    model = DiaModel(weights, Slow(), 1)
    model._depth, model._audio_decoder._background = 1, BackgroundStream(torch.device("cpu"), "codec")
    model._runner = EagerRunner(weights, model._state, PlainOps)
    model.admit(0, asked)
    while not pending:
        assert model.step() == {}
    may_decode.set()

    first = model.step()[0]
    assert isinstance(first, Chunk)
    assert not pending[0].done()
    assert len(pending) == len(model._polls) == 2

    chunks = [first]
    while not chunks[-1].done:
        for copy in pending:
            if not copy.done():
                copy.set_result(None)
        chunks += [chunk for chunk in model.step().values() if isinstance(chunk, Chunk)]
    assert torch.equal(frames_of(chunks), alone)
    model.close()


def test_a_codec_that_cannot_be_captured_runs_eagerly_and_is_noted(weights: Weights) -> None:
    class Uncaptured(CodesAsAudio):
        error: Exception = RuntimeError("no graphs\nwith details")

        def encode(self, samples: Samples) -> torch.LongTensor:
            return super().encode(samples[:90])

        def warm_up(self, most: int) -> None:
            assert most == 2
            raise self.error

    codec = Uncaptured()
    model = DiaModel(weights, codec, 2)
    model.warm_up()
    assert model.notes == (f"{CODEC_NOT_CAPTURED} (RuntimeError: no graphs)",)

    codec.error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        model.warm_up()


def test_streams_that_are_ahead_and_unheard_audio_get_the_longest_windows(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dia_server.engine.dia.windows.AHEAD", 0)
    asked = utterance(0, tokens=216)
    model = DiaModel(weights, CodesAsAudio(), 1)
    model._audio_decoder._clock = lambda: 7.0  # playback stands still
    ahead = drive(model, [asked])[0]
    unheard = drive(DiaModel(weights, CodesAsAudio(), 1), [replace(asked, streamed=False)])[0]

    assert [len(chunk.samples) // 9 for chunk in ahead] == [4, 178, 18]
    assert [len(chunk.samples) // 9 for chunk in unheard] == [182, 18]
    assert torch.equal(frames_of(ahead), frames_of(unheard))


def test_the_lead_of_a_stream_shrinks_while_it_plays() -> None:
    run = Run(utterance(0), 10, 10, 0, 300, (0,), torch.zeros(1, 1), False, emitted=100)
    assert run.lead(5.0) == 0.0  # nothing can be heard yet
    run.begin_playback(5.0)
    run.begin_playback(6.0)
    assert run.lead(5.5) == pytest.approx(100 - 0.5 * 44_100 / 512)


def test_progress_grows_to_1_and_tokens_add_up(weights: Weights) -> None:
    chunks = drive(DiaModel(weights, CodesAsAudio(), 1), [utterance(0, tokens=100)])[0]
    progress = [chunk.progress for chunk in chunks]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert sum(chunk.tokens for chunk in chunks) == 100
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_a_released_slot_is_free_at_once_and_the_others_are_unaffected(weights: Weights) -> None:
    asked = [utterance(0), utterance(1), utterance(2)]
    alone = [frames_of(drive(DiaModel(weights, CodesAsAudio(), 1), [one])[0]) for one in asked]
    model = DiaModel(weights, CodesAsAudio(), 2)
    model.admit(0, asked[0])
    model.admit(1, asked[1])
    chunks: dict[int, list[Chunk]] = {1: [], 0: []}
    for poll in range(60):
        if poll == 3:
            model.release(0)
            model.admit(0, asked[2])
        for slot, outcome in model.step().items():
            assert isinstance(outcome, Chunk)
            chunks[slot].append(outcome)
            if outcome.done:
                model.release(slot)
    assert torch.equal(frames_of(chunks[1]), alone[1])
    assert torch.equal(frames_of(chunks[0]), alone[2])


def test_a_voice_is_encoded_once_and_its_unconditional_row_prefilled_once(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, prefill_uncond = 0, []

    class Counting(CodesAsAudio):
        def encode(self, samples: Samples) -> torch.LongTensor:
            nonlocal encoded
            encoded += 1
            return super().encode(samples)

    def watched(*args: object, **kwargs: bool) -> None:
        prefill_uncond.append(kwargs["prefill_uncond"])
        prefill(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("dia_server.engine.dia.admission.prefill", watched)
    first = utterance(0, prompt=600)
    second = replace(first, text="[S2] Something else.")
    model = DiaModel(weights, Counting(), 1)
    made = drive(model, [first, second])
    assert encoded == 1
    assert prefill_uncond == [True] * 3 + [False] * 3
    for asked, chunks in zip([first, second], made, strict=True):
        alone = drive(DiaModel(weights, CodesAsAudio(), 1), [asked])[0]
        assert torch.equal(frames_of(chunks), frames_of(alone))


def test_kept_voices_are_bounded(weights: Weights) -> None:
    model = DiaModel(weights, CodesAsAudio(), 2, ModelOptions(prompt_bytes=100_000))
    drive(model, [utterance(seed, prompt=50) for seed in range(5)])
    assert 0 < model._prompt_cache.bytes <= 100_000


def test_texts_and_prompts_that_do_not_fit_are_refused(weights: Weights) -> None:
    model = DiaModel(weights, CodesAsAudio(), 1)
    long = replace(utterance(0, prompt=20), text="x" * 1020)
    with pytest.raises(TextTooLong, match="1024 at most"):
        model.admit(0, long)
    model.admit(0, replace(long, prompt=None))
    model.release(0)
    with pytest.raises(Invalid, match="empty"):
        model.admit(0, replace(long, text="  "))
    with pytest.raises(Invalid, match="top_k"):
        model.admit(0, replace(utterance(0), top_k=65))
    with pytest.raises(Invalid, match="voice prompt is too long"):
        drive(model, [utterance(0, prompt=3060)])


def test_the_longest_run_uses_all_columns(weights: Weights) -> None:
    chunks = drive(DiaModel(weights, CodesAsAudio(), 1), [utterance(0, tokens=9999, prompt=3000)])[0]
    assert len(frames_of(chunks)) == 3072 - 3000 - 16


def test_memory_that_is_short_at_admission_fails_that_request_alone(weights: Weights) -> None:
    class Full(CodesAsAudio):
        def encode(self, samples: Samples) -> torch.LongTensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = DiaModel(weights, Full(), 2)
    model.admit(0, utterance(0))
    model.admit(1, utterance(1, prompt=20))
    outcomes = [model.step() for _ in range(20)]
    failures = [outcome[1] for outcome in outcomes if 1 in outcome]
    assert [type(failure) for failure in failures] == [GpuOutOfMemory]
    alone = drive(DiaModel(weights, CodesAsAudio(), 1), [utterance(0)])[0]
    chunks = [outcome[0] for outcome in outcomes if 0 in outcome]
    assert torch.equal(frames_of([chunk for chunk in chunks if isinstance(chunk, Chunk)]), frames_of(alone))


@pytest.mark.parametrize("room", [64, 0])
def test_prefill_shrinks_to_the_memory_there_is(
    weights: Weights, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    def narrow(
        w: Weights, s: object, slot: int, start: int, stop: int, n: int, *, prefill_uncond: bool
    ) -> None:
        if stop - start > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        prefill(w, s, slot, start, stop, n, prefill_uncond=prefill_uncond)  # type: ignore[arg-type]

    alone = drive(DiaModel(weights, CodesAsAudio(), 1), [utterance(0, prompt=150)])[0]
    monkeypatch.setattr("dia_server.engine.dia.admission.prefill", narrow)
    model = DiaModel(weights, CodesAsAudio(), 1)
    if room:
        assert torch.equal(frames_of(drive(model, [utterance(0, prompt=150)])[0]), frames_of(alone))
    else:
        with pytest.raises(GpuOutOfMemory):
            drive(model, [utterance(0, prompt=150)])


class Narrow(CodesAsAudio):
    """A codec with memory for `most` windows at a time, and for none with a frame of `forbidden`."""

    def __init__(self, most: int, forbidden: torch.Tensor | None = None) -> None:
        self.most, self.forbidden = most, forbidden
        self.calls: list[int] = []

    def decode(self, windows: Sequence[Window]) -> list[Samples]:
        self.calls.append(len(windows))
        frames = torch.cat([window.frames for window in windows])
        known = self.forbidden is not None and (frames[:, None] == self.forbidden).all(-1).any()
        if len(windows) > self.most or known:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().decode(windows)


def test_a_codec_short_of_memory_decodes_fewer_windows_at_a_time(weights: Weights) -> None:
    asked = [utterance(seed) for seed in range(5)]
    alone = drive(DiaModel(weights, CodesAsAudio(), 5), asked)
    codec = Narrow(most=2)

    made = drive(DiaModel(weights, codec, 5), asked)

    for chunks, expected in zip(made, alone, strict=True):
        assert torch.equal(frames_of(chunks), frames_of(expected))
    assert codec.calls[:4] == [4, 2, 2, 1]
    assert max(codec.calls[4:]) == 2  # later batches begin with what has fitted


def test_a_codec_with_memory_again_decodes_more_windows_at_a_time() -> None:
    codec = Narrow(most=2)
    decoder = AudioDecoder(codec, torch.device("cpu"))
    windows = [Window(torch.zeros(14, 9).long(), 0, 4)] * 16  # type: ignore[arg-type]

    def decode(count: int) -> list[int]:
        codec.calls.clear()
        decoder._decode(windows[:count])
        return codec.calls

    assert decode(16) == [16, 8, 4, *[2] * 8]
    for _ in range(GROW_AFTER - 9):
        assert decode(2) == [2]
    assert decode(8) == [2, 4, 2, 2, 2]  # memory is still short
    codec.most = 16
    for _ in range(GROW_AFTER - 3):
        assert decode(2) == [2]
    assert decode(8) == [4, 4]
    for _ in range(GROW_AFTER - 2):
        decode(1)
    assert decode(16) == [8, 8]
    for _ in range(GROW_AFTER - 2):
        decode(1)
    assert decode(16) == [16]


def test_memory_that_runs_out_in_the_codec_fails_that_request_alone(weights: Weights) -> None:
    asked = [utterance(seed) for seed in range(4)]
    alone = [frames_of(chunks) for chunks in drive(DiaModel(weights, CodesAsAudio(), 4), asked)]
    model = DiaModel(weights, Narrow(most=4, forbidden=alone[2]), 4)
    for slot, one in enumerate(asked):
        model.admit(slot, one)
    made: dict[int, list[Chunk]] = {slot: [] for slot in range(4)}
    failures: list[tuple[int, Exception]] = []
    while any(not chunks or not chunks[-1].done for slot, chunks in made.items() if slot != 2):
        for slot, outcome in model.step().items():
            if isinstance(outcome, Chunk):
                made[slot].append(outcome)
            else:
                failures.append((slot, outcome))
            if isinstance(outcome, Exception) or outcome.done:
                model.release(slot)

    assert [(slot, type(failure)) for slot, failure in failures] == [(2, GpuOutOfMemory)]
    assert all(torch.equal(frames_of(made[slot]), alone[slot]) for slot in (0, 1, 3))


@pytest.mark.parametrize("failure", [RuntimeError("device-side assert"), torch.OutOfMemoryError("full")])
def test_the_model_serves_on_after_a_step_that_failed(weights: Weights, failure: Exception) -> None:
    class Failing(CodesAsAudio):
        failing = True

        def decode(self, windows: Sequence[Window]) -> list[Samples]:
            if self.failing:
                raise failure
            return super().decode(windows)

    codec: AudioCodec = Failing()
    model = DiaModel(weights, codec, 1)
    expected = GpuOutOfMemory if isinstance(failure, torch.OutOfMemoryError) else RuntimeError
    with pytest.raises(expected):
        drive(model, [utterance(0)])
    model.release(0)
    model.reset()
    Failing.failing = False
    alone = drive(DiaModel(weights, CodesAsAudio(), 1), [utterance(1)])[0]
    assert torch.equal(frames_of(drive(model, [utterance(1)])[0]), frames_of(alone))


def test_nan_is_reported_and_gone_with_its_utterance(layered_weights: Weights) -> None:
    model = DiaModel(layered_weights, CodesAsAudio(), 2)
    model.admit(0, utterance(0))
    model.admit(1, utterance(1))
    model._state.text[:, 0] = torch.nan
    outcomes = model.step()
    assert isinstance(outcomes[0], ServerError)
    assert "not finite" in str(outcomes[0])
    assert 1 not in outcomes
    model.release(0)
    assert model._state.text.isfinite().all()
    assert all(layer.isfinite().all() for layer in model._state.cache)
    model.release(1)
    alone = drive(DiaModel(layered_weights, CodesAsAudio(), 1), [utterance(2)])[0]
    assert torch.equal(frames_of(drive(model, [utterance(2)])[0]), frames_of(alone))


def test_a_prompt_is_encoded_while_others_run(weights: Weights) -> None:
    may_encode = threading.Event()

    class Slow(CodesAsAudio):
        def encode(self, samples: Samples) -> torch.LongTensor:
            may_encode.wait(10)
            return super().encode(samples)

    asked = [utterance(0, tokens=60), utterance(1, prompt=20)]
    alone = [frames_of(drive(DiaModel(weights, CodesAsAudio(), 1), [one])[0]) for one in asked]
    model = DiaModel(weights, Slow(), 2)
    model.admit(0, asked[0])
    model.admit(1, asked[1])
    chunks: list[list[Chunk]] = [[], []]
    while not all(made and made[-1].done for made in chunks):
        for slot, outcome in model.step().items():
            assert isinstance(outcome, Chunk)
            chunks[slot].append(outcome)
            if outcome.done:
                model.release(slot)
                may_encode.set()  # the first utterance has ended by now
    assert all(torch.equal(frames_of(c), frames) for c, frames in zip(chunks, alone, strict=True))


def test_an_utterance_cancelled_while_its_prompt_is_encoded_is_gone(weights: Weights) -> None:
    model = DiaModel(weights, CodesAsAudio(), 1)
    model.admit(0, utterance(1, prompt=20))
    model.release(0)
    assert model.step() == {}
    alone = drive(DiaModel(weights, CodesAsAudio(), 1), [utterance(0)])[0]
    assert torch.equal(frames_of(drive(model, [utterance(0)])[0]), frames_of(alone))


def test_the_last_chunk_has_the_frames_which_need_not_be_encoded(weights: Weights) -> None:
    class Mute(CodesAsAudio):
        def encode(self, samples: Samples) -> torch.LongTensor:
            raise AssertionError("there is nothing to encode")

    chunks = drive(DiaModel(weights, CodesAsAudio(), 1), [utterance(0, prompt=7)])[0]
    frames = chunks[-1].frames
    assert frames is not None
    assert torch.equal(torch.from_numpy(frames).long(), frames_of(chunks))
    assert [chunk.frames for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)

    encoded = prompt_of(torch.from_numpy(frames), "[S1] So it goes.")
    with_frames = replace(encoded, parts=(GeneratedAudio(frames),))
    made = drive(DiaModel(weights, Mute(), 1), [replace(utterance(1), prompt=with_frames)])[0]
    expected = drive(DiaModel(weights, CodesAsAudio(), 1), [replace(utterance(1), prompt=encoded)])[0]
    assert torch.equal(frames_of(made), frames_of(expected))


def test_the_old_arenas_are_gone_before_new_ones_are_made(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full GPU has no memory for both."""

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = DiaModel(weights, CodesAsAudio(), 1)
    old = weakref.ref(model._state.cache[0])
    seen = []
    prepare = model._prepare

    def watched(report: Callable[[float], None]) -> None:
        seen.append(old())
        prepare(report)

    monkeypatch.setattr(model, "_prepare", watched)
    with monkeypatch.context() as patch:
        patch.setattr("dia_server.engine.dia.step_runners.step", fail)
        with pytest.raises(GpuOutOfMemory):
            drive(model, [utterance(0)])
    model.release(0)
    model.reset()
    assert seen == [None]


def test_a_released_slot_costs_little_as_padding(weights: Weights) -> None:
    model = DiaModel(weights, CodesAsAudio(), 2)
    drive(model, [utterance(0), utterance(1, prompt=30)])

    state = model._state
    assert state.position.tolist() == [0, 0]
    assert state.text_length.tolist() == [1, 1]
    assert not state.live.any()


def test_warming_up_leaves_nothing_behind(weights: Weights) -> None:
    model = DiaModel(weights, Codec(tiny_dac()), 1)
    model.warm_up()
    assert model._prompt_cache.bytes == 0
    alone = audio_of(drive(DiaModel(weights, Codec(tiny_dac()), 1), [utterance(0)])[0])
    assert (audio_of(drive(model, [utterance(0)])[0]) == alone).all()


class Captured(EagerRunner):
    """Replaces a `CudaGraphRunner` on a CPU."""


@pytest.mark.parametrize("make_ops", [PlainOps, KernelOps])
def test_each_version_of_the_operations_makes_the_same_tokens(
    layered_weights: Weights, make_ops: MakeOps
) -> None:
    asked = [utterance(1), utterance(2, prompt=30), utterance(3)]
    model = DiaModel(layered_weights, CodesAsAudio(), 3)
    model._runner = EagerRunner(layered_weights, model._state, make_ops)

    made = drive(model, asked)

    expected = drive(DiaModel(layered_weights, CodesAsAudio(), 3), asked)
    for chunks, same in zip(made, expected, strict=True):
        assert torch.equal(frames_of(chunks), frames_of(same))


def test_without_kernels_the_cause_and_the_remedy_are_noted_once(
    weights: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "dia_server")  # servers of other tests set it too
    model = DiaModel(
        weights, CodesAsAudio(), 1, ModelOptions(compiled=True, kernel_fault="RuntimeError: no C compiler")
    )
    model.reset()

    [note] = model.notes
    assert "python3-dev" in note
    assert "no C compiler" in note
    assert [vars(record)["cause"] for record in caplog.records] == ["RuntimeError: no C compiler"]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_the_fastest_step_that_can_be_captured_is(
    weights: Weights, monkeypatch: pytest.MonkeyPatch, failing: int, fused: bool
) -> None:
    tried: list[Step] = []

    def graphs(
        weights: Weights, state: State, step: Step, report: Callable[[float], None], steps: int
    ) -> Captured:
        assert steps == STEPS_PER_POLL
        if step not in tried:
            tried.append(step)
        if len(tried) <= failing:
            raise RuntimeError("failed\nwith details")
        return Captured(weights, state, PlainOps)

    monkeypatch.setattr(model_module, "CudaGraphRunner", graphs)
    model = DiaModel(weights, CodesAsAudio(), 1)
    model._to_capture = capturable_steps(KernelOps, torch.device("cuda"), fused=fused)
    model.reset()
    model.reset()  # does not retry failed captures

    possible = (NOT_FUSED, NOT_CAPTURED) if fused else (NOT_CAPTURED,)
    notes = [f"{text} (RuntimeError: failed)" for text in possible]
    assert list(model.notes) == notes[:failing]
    assert isinstance(model._runner, Captured) == (failing < len(possible))
    drive(model, [utterance(1)])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("device", "count"), [("cuda", 1), ("cpu", 0), ("mps", 0)])
def test_only_cuda_has_graphs_and_there_even_uncompiled_steps_have(
    device: str, count: int, fused: bool
) -> None:
    steps = [step for step, _ in capturable_steps(KernelOps, torch.device(device), fused=fused)]

    assert len(steps) == count * (1 + fused)
    plain = [step for step in steps if isinstance(step, partial)]
    assert [step.func for step in plain] == [step_module.step] * count
    assert steps[len(steps) - count :] == plain  # the compiled step comes first
