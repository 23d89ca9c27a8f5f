import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dia_server.engine.engine import Engine
from dia_server.engine.types import EngineName, Recording, Samples, Utterance, VoicePrompt
from dia_server.errors import EngineLost, GpuOutOfMemory, ModelNotLoaded, Overloaded, ServerError
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.narration import MAX_CHUNK, NOTHING, Narrated, Narration
from dia_server.services.speech.narrator import ExceedsLimit, Narrator
from dia_server.services.speech.segment import Segment
from dia_server.services.speech.timestamps import Timing
from dia_server.services.speech.usage import UsageMeter
from dia_server.text.plan import Plan, PlannedUtterance
from dia_server.units import SAMPLE_RATE
from tests.garbage import until_freed, without_collector
from tests.prompts import generated_frames
from tests.scripted import Part, Script, ScriptedModel, frames_of, speech
from tests.waiting import until

PROMPT = VoicePrompt((Recording(np.ones(SAMPLE_RATE, np.float32), "digest"),), "[S1] I speak like this.")
BASE = Utterance("the whole", "aria", seed=7)
SILENT: list[Part] = [np.zeros(SAMPLE_RATE, np.float32)]


def level(utterance: Utterance) -> float:
    """Return the loudness that identifies a segment: 0.1 for the first, 0.2 for the second."""
    return int(utterance.text.split()[1].rstrip(".")) / 10


def say(utterance: Utterance) -> list[Part]:
    return speech(1.0, level(utterance))


def segments(
    count: int,
    *,
    pause_s: float = 0.0,
    gap_s: float = 0.0,
    pause_after_s: float = 0.0,
    anchored: bool = False,
) -> Plan:
    return Plan(
        tuple(
            PlannedUtterance(f"[S1] {n}", ".", pause_s, gap_s, 1.0, 300, {"S1": "S1"})
            for n in range(1, count + 1)
        ),
        pause_after_s,
        anchored,
    )


class Rig:
    def __init__(
        self, engine: Engine, model: ScriptedModel, retries: int, exceeds_limit: ExceedsLimit | None
    ) -> None:
        self.engine, self.model = engine, model
        self.narrator = Narrator(engine, retries=retries, exceeds_limit=exceeds_limit)
        self.meter = UsageMeter()
        """Usage of the last narration."""

    def narrate(
        self, plan: Plan, base: Utterance = BASE, *, live: bool = False, speed: float = 1.0
    ) -> AsyncGenerator[Narrated]:
        self.meter = UsageMeter()
        delivery = Delivery(live=live)
        return Narration(self.narrator, plan, base, delivery, self.meter, speed=speed).play()

    async def tell(self, plan: Plan, base: Utterance = BASE, **how: Any) -> list[Narrated]:
        async with aclosing(self.narrate(plan, base, **how)) as narration:
            return [narrated async for narrated in narration]

    async def is_idle(self) -> bool:
        return self.engine.active == 0

    async def must_be_freed(self) -> None:
        """Wait until no slot is busy; together they must not have said the minute that each was given."""
        await until(self.is_idle)
        assert self.engine.work.samples < 60 * SAMPLE_RATE


@asynccontextmanager
async def rig(
    script: Script = say,
    *,
    slots: int = 4,
    max_waiting: int = 16,
    retries: int = 0,
    exceeds_limit: ExceedsLimit | None = None,
    step_s: float = 0.0,
    name: EngineName = "dia",
) -> AsyncIterator[Rig]:
    model = ScriptedModel(script, slots, step_s)
    engine = Engine(name, lambda _: model, max_waiting=max_waiting)
    engine.start()
    try:
        while not engine.ready:
            await asyncio.sleep(0.001)
        yield Rig(engine, model, retries, exceeds_limit)
    finally:
        await asyncio.to_thread(engine.stop)


def sound(narration: list[Narrated]) -> Samples:
    return np.concatenate([narrated.samples for narrated in narration])


def levels(narration: list[Narrated]) -> list[float]:
    """Return the loudness of each second."""
    samples = sound(narration)
    return [
        float(np.abs(second).max()) for second in np.array_split(samples, round(len(samples) / SAMPLE_RATE))
    ]


async def test_segments_run_side_by_side_and_come_out_in_order() -> None:
    def slower_first(utterance: Utterance) -> list[Part]:
        return speech(1.0, level(utterance)) if level(utterance) > 0.1 else speech(2.0, 0.1)

    async with rig(slower_first, step_s=0.002) as rigged:
        narration = await rigged.tell(segments(4), Utterance("", "aria", 7, prompt=PROMPT))

        assert rigged.model.most == 4
        assert levels(narration) == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.4], abs=0.02)


async def test_segments_of_dia_are_timed_exactly() -> None:
    async with rig(lambda u: speech(1.0, level(u)) + SILENT) as rigged:
        timing = Timing("segment", {"S1": "aria"}, speed=1.0)
        plan = segments(3, pause_s=1.0)
        narration = Narration(rigged.narrator, plan, BASE, Delivery(), UsageMeter(), timing=timing)
        narrated = [one async for one in narration.play()]

    loud = np.flatnonzero(np.abs(sound(narrated)) > 0.003)
    parts = np.split(loud, np.flatnonzero(np.diff(loud) > SAMPLE_RATE // 2) + 1)
    told = [one for part in narrated for one in part.timestamps]
    assert [(one.text, one.voice, one.estimated) for one in told] == [
        (str(number), "aria", False) for number in (1, 2, 3)
    ]
    for one, part in zip(told, parts, strict=True):
        assert one.start == pytest.approx(part[0] / SAMPLE_RATE, abs=0.005)
        assert one.end == pytest.approx(part[-1] / SAMPLE_RATE, abs=0.015)  # the fade-out


async def test_without_a_prompt_the_first_segment_is_the_prompt_of_the_others() -> None:
    async with rig(step_s=0.002) as rigged:
        narration = rigged.narrate(segments(4, anchored=True), BASE)
        async with aclosing(narration):
            async for narrated in narration:
                if narrated.progress < 0.25:
                    assert len(rigged.model.seen) == 1

        first, *others = rigged.model.seen
        assert first.prompt is None
        assert len(others) == 3
        for other in others:
            assert other.prompt is not None
            assert len(other.prompt.parts) == 1
            np.testing.assert_array_equal(generated_frames(other.prompt), frames_of(first))
            assert other.prompt.transcript == "[S1] 1"
        assert rigged.model.most == 3


async def test_a_first_segment_follows_the_voices_own_prompt_into_that_of_the_others() -> None:
    async with rig(step_s=0.002) as rigged:
        await rigged.tell(segments(3, anchored=True), Utterance("", "aria", 7, prompt=PROMPT))

        first, *others = rigged.model.seen
        assert first.prompt is PROMPT
        for other in others:
            assert other.prompt is not None
            assert other.prompt.parts[:-1] == PROMPT.parts
            np.testing.assert_array_equal(generated_frames(other.prompt), frames_of(first))
            assert other.prompt.transcript == "[S1] I speak like this. [S1] 1"
        assert rigged.model.most == 2


@pytest.mark.parametrize("prompt", [None, PROMPT])
async def test_a_silent_first_segment_is_not_used_as_a_prompt(prompt: VoicePrompt | None) -> None:
    async with rig(lambda u: SILENT if level(u) == 0.1 else say(u)) as rigged:
        narration = await rigged.tell(segments(2, anchored=True), Utterance("", "aria", 7, prompt=prompt))

        assert rigged.model.seen[1].prompt is prompt
        assert levels(narration) == pytest.approx([0.2], abs=0.01)


@pytest.mark.parametrize(
    ("first", "max_tokens"), [(speech(0.1), None), (speech(2.0), 100)], ids=["too short", "cut by its limit"]
)
async def test_the_next_segment_leads_where_the_first_lacks_words(
    first: list[Part], max_tokens: int | None
) -> None:
    long = replace(segments(1).utterances[0], estimated_s=4.0)
    plan = Plan((long, *segments(4).utterances[1:]), 0.0, anchored=True)

    async with rig(lambda u: first if level(u) == 0.1 else say(u), retries=1) as rigged:
        await rigged.tell(plan, Utterance("", "aria", 7, max_tokens=max_tokens), live=True)

        assert [utterance.prompt for utterance in rigged.model.seen[:2]] == [None, None]
        for other in rigged.model.seen[2:]:
            assert other.prompt is not None
            assert other.prompt.transcript == "[S1] 2"


async def test_a_segment_that_leaves_no_room_for_others_does_not_lead() -> None:
    second = replace(segments(2).utterances[1], text="[S1] 2" + " word" * 80)
    plan = Plan((segments(1).utterances[0], second, *segments(4).utterances[2:]), 0.0, anchored=True)

    async with rig(lambda u: SILENT if level(u) == 0.1 else say(u)) as rigged:
        await rigged.tell(plan)

        prompts = [utterance.prompt for utterance in rigged.model.seen]
        assert prompts[:3] == [None, None, None]
        assert prompts[3] is not None
        assert prompts[3].transcript == "[S1] 3"


async def test_the_preview_needs_no_anchor() -> None:
    async with rig(step_s=0.002, name="preview") as rigged:
        await rigged.tell(segments(4, anchored=True))

        assert rigged.model.most == 4


async def test_ahead_s_bounds_the_segments_that_start() -> None:
    async with rig() as rigged:
        base = Utterance("", "aria", 7, prompt=PROMPT)
        rigged.narrator.ahead_s = 2.5
        narration = rigged.narrate(segments(8), base, live=True)
        async with aclosing(narration):
            await anext(narration)
            await until(rigged.is_idle)
            assert len(rigged.model.seen) == 2

            assert len([narrated async for narrated in narration])
            assert len(rigged.model.seen) == 8


async def test_a_long_chunk_of_the_engine_is_split() -> None:
    whole = np.concatenate([part for part in speech(2.0) if isinstance(part, np.ndarray)])
    async with rig(lambda _: [whole]) as rigged:
        narration = await rigged.tell(segments(1), live=True)

    assert max(len(narrated.samples) for narrated in narration) == MAX_CHUNK
    assert len(narration) > 8
    assert rigged.meter.tokens == 8  # of the one chunk


async def test_leaving_early_frees_every_slot() -> None:
    async with rig(lambda u: speech(60), step_s=0.02) as rigged:
        narration = rigged.narrate(segments(9), Utterance("", "aria", 7, prompt=PROMPT), live=True)
        await anext(narration)
        assert rigged.engine.active == 4

        await narration.aclose()

        await rigged.must_be_freed()
        assert len(rigged.model.seen) == 4


async def test_being_cancelled_frees_every_slot() -> None:
    async with rig(lambda u: speech(60), step_s=0.02) as rigged:
        telling = asyncio.create_task(rigged.tell(segments(9), Utterance("", "aria", 7, prompt=PROMPT)))

        async def is_full() -> bool:
            return rigged.engine.active == 4

        await until(is_full)
        telling.cancel()

        await rigged.must_be_freed()


async def test_being_cancelled_frees_the_audio_without_the_garbage_collector() -> None:
    async with rig(lambda u: speech(60), step_s=0.02) as rigged:
        with without_collector():
            telling = asyncio.create_task(rigged.tell(segments(9), Utterance("", "aria", 7, prompt=PROMPT)))

            async def has_said_something() -> bool:
                return rigged.engine.work.samples > 0

            await until(has_said_something)
            telling.cancel()
            del telling
            await rigged.must_be_freed()
            await until_freed(Segment)


async def test_a_failure_frees_the_audio_without_the_garbage_collector() -> None:
    async with rig(lambda u: [*speech(1.0), ServerError("no more")]) as rigged:
        with without_collector():
            with pytest.raises(ServerError, match="no more") as raised:
                await rigged.tell(segments(3), Utterance("", "aria", 7, prompt=PROMPT))
            del raised
            await until_freed(Segment)


async def test_an_error_is_raised_in_order_and_later_segments_are_cancelled() -> None:
    def fail_third(utterance: Utterance) -> list[Part]:
        if level(utterance) == 0.3:
            return [*speech(0.2, 0.3), ServerError("no more")]
        return speech(60, 0.4) if level(utterance) > 0.3 else say(utterance)

    async with rig(fail_third, step_s=0.01) as rigged:
        received: list[Narrated] = []

        async def listen() -> None:
            async for narrated in rigged.narrate(segments(5), Utterance("", "aria", 7, prompt=PROMPT)):
                received.append(narrated)

        with pytest.raises(ServerError, match="no more"):
            await listen()

        samples = sound(received)
        assert np.abs(samples[:SAMPLE_RATE]).max() == pytest.approx(0.1, abs=0.01)
        assert np.abs(samples[-SAMPLE_RATE // 5 :]).max() == pytest.approx(0.3, abs=0.01)
        await rigged.must_be_freed()
        assert len(rigged.model.seen) <= 5


def faulty_with(*seeds: int) -> Script:
    return lambda utterance: SILENT if utterance.seed in seeds else say(utterance)


async def test_a_faulty_segment_is_retried_with_the_next_seed() -> None:
    async with rig(faulty_with(7), retries=2) as rigged:
        narration = await rigged.tell(segments(1))

        assert [utterance.seed for utterance in rigged.model.seen] == [7, 8]
        assert levels(narration) == pytest.approx([0.1], abs=0.01)
        assert (rigged.meter.retries, rigged.meter.faults) == (1, set())


async def test_seeds_go_round_at_their_end() -> None:
    async with rig(faulty_with(2**32 - 1), retries=2) as rigged:
        await rigged.tell(segments(1), Utterance("", "aria", 2**32 - 1))

        assert [utterance.seed for utterance in rigged.model.seen] == [2**32 - 1, 0]


async def test_retries_are_bounded() -> None:
    async with rig(faulty_with(7, 8, 9), retries=2) as rigged:
        narration = await rigged.tell(segments(1))

        assert [utterance.seed for utterance in rigged.model.seen] == [7, 8, 9]
        np.testing.assert_array_equal(sound(narration), NOTHING)


async def test_sent_audio_is_not_retried_but_later_segments_are() -> None:
    async with rig(faulty_with(7), retries=2) as rigged:
        narration = await rigged.tell(segments(2), Utterance("", "aria", 7, prompt=PROMPT), live=True)

        assert sorted(utterance.text for utterance in rigged.model.seen) == ["[S1] 1.", "[S1] 2.", "[S1] 2."]
        assert levels(narration) == pytest.approx([0.2], abs=0.02)
        assert (rigged.meter.retries, rigged.meter.faults) == (1, {"silent"})


async def test_of_faulty_attempts_the_one_with_the_fewest_faults_is_kept() -> None:
    def endless(seconds: float, level: float) -> list[Part]:
        return list(speech(seconds + 1, level)[: round(seconds * 10)])  # it does not fall silent

    def script(utterance: Utterance) -> list[Part]:
        return endless(1, 0.3) if utterance.seed == 8 else endless(6, 0.1)

    async with rig(script, retries=2) as rigged:
        narration = await rigged.tell(segments(1))

        assert [utterance.seed for utterance in rigged.model.seen] == [7, 8, 9]
        assert levels(narration) == pytest.approx([0.3], abs=0.01)
        assert (rigged.meter.retries, rigged.meter.faults) == (2, {"cut_off"})


async def test_a_faulty_segment_is_kept_if_its_retry_fails() -> None:
    def script(utterance: Utterance) -> list[Part]:
        return speech(0.1, 0.3) if utterance.seed == 7 else [GpuOutOfMemory("full")]

    async with rig(script, retries=2) as rigged:
        narration = await rigged.tell(Plan((replace(segments(1).utterances[0], estimated_s=4.0),), 0.0))

        assert np.abs(sound(narration)).max() == pytest.approx(0.3, abs=0.02)
        assert (rigged.meter.retries, rigged.meter.faults) == (1, {"too_short"})


async def test_a_held_segment_is_generated_anew_if_its_engine_is_lost() -> None:
    losses = [EngineLost("killed"), EngineLost("killed")]

    def script(utterance: Utterance) -> list[Part]:
        return [*speech(0.1)[:1], losses.pop()] if losses else say(utterance)

    async with rig(script, retries=1) as rigged:
        narration = await rigged.tell(segments(1))

        assert levels(narration) == pytest.approx([0.1], abs=0.01)
        assert (len(rigged.model.seen), rigged.meter.retries) == (3, 0)

        losses += [EngineLost("killed")] * 3
        with pytest.raises(EngineLost):
            await rigged.tell(segments(1))


async def test_a_segment_that_is_heard_ends_with_its_engine() -> None:
    async with rig(lambda _: [*speech(0.1)[:1], EngineLost("killed")], retries=1) as rigged:
        with pytest.raises(EngineLost):
            await rigged.tell(segments(1), live=True)
        assert len(rigged.model.seen) == 1


async def test_a_segment_that_exceeds_the_word_error_limit_is_faulty() -> None:
    asked: list[str] = []

    async def exceeds_limit(samples: Samples, text: str) -> bool:
        asked.append(text)
        return float(np.abs(samples).max()) < 0.15  # the first segment

    async with rig(retries=1, exceeds_limit=exceeds_limit) as rigged:
        await rigged.tell(segments(2), Utterance("", "aria", 7, prompt=PROMPT))

        assert sorted(asked) == ["[S1] 1", "[S1] 1", "[S1] 2"]
        assert (rigged.meter.retries, rigged.meter.faults) == (1, {"misheard"})

        asked.clear()
        await rigged.tell(segments(2), Utterance("", "aria", 7, prompt=PROMPT), live=True)

        assert asked == ["[S1] 2"]
        assert rigged.meter.faults == set()


async def test_a_segment_cut_by_the_clients_limit_is_not_retried() -> None:
    async with rig(faulty_with(7), retries=2) as rigged:
        await rigged.tell(segments(1), Utterance("", "aria", 7, max_tokens=20))

        assert [utterance.max_tokens for utterance in rigged.model.seen] == [20]
        assert rigged.meter.faults == set()


async def test_a_limit_of_tokens_is_for_each_segment_so_that_none_is_lost() -> None:
    async with rig() as rigged:
        narration = await rigged.tell(segments(3), Utterance("", "aria", 7, prompt=PROMPT, max_tokens=100))

        assert [utterance.max_tokens for utterance in rigged.model.seen] == [100, 100, 100]
        assert levels(narration) == pytest.approx([0.1, 0.2, 0.3], abs=0.02)


async def test_a_segment_is_not_longer_than_its_plan_allows_whatever_the_limit() -> None:
    async with rig() as rigged:
        await rigged.tell(segments(1), Utterance("", "aria", 7, max_tokens=10_000))

        assert [utterance.max_tokens for utterance in rigged.model.seen] == [300]


@pytest.mark.parametrize("live", [False, True])
async def test_without_a_guard_nothing_is_judged(live: bool) -> None:
    async with rig(faulty_with(7)) as rigged:
        await rigged.tell(segments(1), live=live)

        assert rigged.meter.faults == set()


async def test_time_blocked_on_a_slow_listener_is_not_counted() -> None:
    async with rig(step_s=0.005) as rigged:
        rigged.narrator.ahead_s = 1.0
        narration = rigged.narrate(segments(2), live=True)
        async with aclosing(narration):
            async for _ in narration:
                await asyncio.sleep(0.05)

        counted = rigged.meter.total(speed=2.0)
        assert 0.1 <= counted.generation_s < 0.5  # of the steps; there were 20 parts to listen to
        assert counted.audio_s == pytest.approx(1.0, abs=0.1)
        assert counted.tokens == 160


@pytest.mark.parametrize("live", [False, True])
async def test_progress_never_falls_and_ends_with_1(live: bool) -> None:
    async with rig(retries=2) as rigged:
        narration = await rigged.tell(segments(4, pause_s=0.3, pause_after_s=0.5), live=live)

        progress = [narrated.progress for narrated in narration]
        assert progress == sorted(progress)
        assert progress[0] > 0
        assert progress[-1] == 1
        assert len(set(progress)) > 20


async def test_pauses_are_where_the_plan_has_them() -> None:
    async with rig() as rigged:
        together = sound(await rigged.tell(segments(3)))
        apart = sound(await rigged.tell(segments(3, pause_s=0.5, pause_after_s=0.25)))

        assert len(apart) - len(together) == pytest.approx(1.75 * SAMPLE_RATE, abs=3)
        assert not apart[: SAMPLE_RATE // 2].any()
        assert not apart[-SAMPLE_RATE // 4 :].any()


@pytest.mark.parametrize("speed", [0.5, 2.0])
async def test_requested_pauses_last_as_long_at_any_speed(speed: float) -> None:
    async with rig() as rigged:
        plan = segments(3, pause_s=0.5, gap_s=0.25, pause_after_s=0.5)
        normal, changed = sound(await rigged.tell(plan)), sound(await rigged.tell(plan, speed=speed))

        assert len(changed) - len(normal) == pytest.approx(2.0 * (speed - 1) * SAMPLE_RATE, abs=3)


async def test_an_empty_plan_gives_a_moment_of_silence() -> None:
    async with rig() as rigged:
        np.testing.assert_array_equal(sound(await rigged.tell(Plan((), 0.0))), NOTHING)


async def test_a_text_of_no_estimated_length_can_be_spoken() -> None:
    one = PlannedUtterance("[S1] 1", "", 0.0, 0.0, 0.0, 300, {"S1": "S1"})
    async with rig() as rigged:
        assert (await rigged.tell(Plan((one,), 0.0)))[-1].progress == 1


async def test_a_long_text_is_not_too_long_for_a_short_queue() -> None:
    async with rig(slots=1, max_waiting=1) as rigged:
        narration = await rigged.tell(segments(6), Utterance("", "aria", 7, prompt=PROMPT))

        assert levels(narration) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], abs=0.02)


async def test_a_full_queue_refuses_a_new_text_and_delays_a_started_one() -> None:
    async with rig(slots=1, max_waiting=1, step_s=0.01) as rigged:
        base = Utterance("", "aria", 7, prompt=PROMPT)
        begun = asyncio.create_task(rigged.tell(segments(3), base))
        other = asyncio.create_task(rigged.tell(segments(1), base))
        while rigged.engine.active < 2:
            await asyncio.sleep(0.001)

        with pytest.raises(Overloaded) as refused:
            await rigged.tell(segments(1), base)
        assert refused.value.nothing_begun
        assert levels(await begun) == pytest.approx([0.1, 0.2, 0.3], abs=0.02)
        other.cancel()


@pytest.mark.parametrize("accepted", [False, True])
async def test_an_engine_that_stops_tells_whether_it_has_begun(accepted: bool) -> None:
    async with rig(step_s=0.01) as rigged:
        if not accepted:
            await asyncio.to_thread(rigged.engine.stop)
        asked = asyncio.create_task(rigged.tell(segments(1)))
        if accepted:
            await until(lambda: rigged.engine.busy == 1)
            await asyncio.to_thread(rigged.engine.stop)

        with pytest.raises(ModelNotLoaded) as refused:
            await asked

        assert refused.value.nothing_begun is not accepted


async def test_texts_share_a_full_engine() -> None:
    """A long text uses all slots while it is alone, and leaves slots to others that wait."""
    async with rig(step_s=0.005) as rigged:
        base = Utterance("", "aria", 7, prompt=PROMPT)
        long = asyncio.create_task(rigged.tell(segments(9), base))
        while rigged.engine.active < 4:
            await asyncio.sleep(0.001)

        await rigged.tell(segments(1), base)

        assert not long.done()
        assert len(rigged.model.seen) < 10  # both texts together
        await long


async def test_a_seed_gives_the_same_audio_however_fast_it_is_read() -> None:
    async with rig(faulty_with(7), retries=1, step_s=0.001) as rigged:
        base = Utterance("", "aria", 7, prompt=PROMPT)
        fast = sound(await rigged.tell(segments(5), base, live=True))

        slow = []
        rigged.narrator.ahead_s = 1.0
        async with aclosing(rigged.narrate(segments(5), base, live=True)) as narration:
            async for narrated in narration:
                slow.append(narrated)
                await asyncio.sleep(0.005)

        np.testing.assert_array_equal(sound(slow), fast)
