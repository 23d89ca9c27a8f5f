import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dia_server.engine.engine import Engine
from dia_server.engine.types import EngineName, Samples, Utterance, VoicePrompt
from dia_server.errors import GpuOutOfMemory, Overloaded, ServerError
from dia_server.services.speech.delivery import Delivery
from dia_server.services.speech.narration import MAX_CHUNK, NOTHING, Narrated, Narration
from dia_server.services.speech.narrator import ExceedsLimit, Narrator
from dia_server.services.speech.segment import Segment
from dia_server.services.speech.usage import UsageMeter
from dia_server.text.plan import Plan, PlannedUtterance
from dia_server.units import SAMPLE_RATE
from tests.garbage import until_freed, without_collector
from tests.scripted import Part, Script, ScriptedModel, frames_of, speech
from tests.waiting import until

PROMPT = VoicePrompt(np.ones(SAMPLE_RATE, np.float32), "[S1] I speak like this.", "digest")
BASE = Utterance("the whole", "aria", seed=7)
SILENT: list[Part] = [np.zeros(SAMPLE_RATE, np.float32)]


def level(utterance: Utterance) -> float:
    """Tells segments apart by ear: the first has 0.1, the second 0.2."""
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
            PlannedUtterance(f"[S1] {n}", ".", pause_s, gap_s, estimated_s=1.0, max_tokens=300)
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
    """The loudness of each second."""
    samples = sound(narration)
    return [
        float(np.abs(second).max()) for second in np.array_split(samples, round(len(samples) / SAMPLE_RATE))
    ]


async def test_segments_run_side_by_side_and_come_out_in_order() -> None:
    def slower_first(utterance: Utterance) -> list[Part]:
        return speech(1.0, level(utterance)) if level(utterance) > 0.1 else speech(2.0, 0.1)

    async with rig(slower_first, step_s=0.002) as made:
        narration = await made.tell(segments(4), Utterance("", "aria", 7, prompt=PROMPT))

        assert made.model.most == 4
        assert levels(narration) == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.4], abs=0.02)


async def test_without_a_prompt_the_first_segment_is_the_prompt_of_the_others() -> None:
    async with rig(step_s=0.002) as made:
        narration = made.narrate(segments(4, anchored=True), BASE)
        async with aclosing(narration):
            async for narrated in narration:
                if narrated.progress < 0.25:
                    assert len(made.model.seen) == 1

        first, *others = made.model.seen
        assert first.prompt is None
        assert len(others) == 3
        for other in others:
            assert other.prompt is not None
            assert len(other.prompt.samples) == 0
            np.testing.assert_array_equal(other.prompt.generated_frames, frames_of(first))
            assert other.prompt.transcript == "[S1] 1"
        assert made.model.most == 3


async def test_a_first_segment_follows_the_voices_own_prompt_into_that_of_the_others() -> None:
    async with rig(step_s=0.002) as made:
        await made.tell(segments(3, anchored=True), Utterance("", "aria", 7, prompt=PROMPT))

        first, *others = made.model.seen
        assert first.prompt is PROMPT
        for other in others:
            assert other.prompt is not None
            assert other.prompt.samples is PROMPT.samples
            np.testing.assert_array_equal(other.prompt.generated_frames, frames_of(first))
            assert other.prompt.transcript == "[S1] I speak like this. [S1] 1"
        assert made.model.most == 2


@pytest.mark.parametrize("prompt", [None, PROMPT])
async def test_a_first_segment_without_a_sound_is_nobodys_prompt(prompt: VoicePrompt | None) -> None:
    async with rig(lambda u: SILENT if level(u) == 0.1 else say(u)) as made:
        narration = await made.tell(segments(2, anchored=True), Utterance("", "aria", 7, prompt=prompt))

        assert made.model.seen[1].prompt is prompt
        assert levels(narration) == pytest.approx([0.2], abs=0.01)


@pytest.mark.parametrize(
    ("first", "max_tokens"), [(speech(0.1), None), (speech(2.0), 100)], ids=["too short", "cut by its limit"]
)
async def test_the_next_segment_leads_where_the_first_lacks_words(
    first: list[Part], max_tokens: int | None
) -> None:
    long = replace(segments(1).utterances[0], estimated_s=4.0)
    plan = Plan((long, *segments(4).utterances[1:]), 0.0, anchored=True)

    async with rig(lambda u: first if level(u) == 0.1 else say(u), retries=1) as made:
        await made.tell(plan, Utterance("", "aria", 7, max_tokens=max_tokens), live=True)

        assert [utterance.prompt for utterance in made.model.seen[:2]] == [None, None]
        for other in made.model.seen[2:]:
            assert other.prompt is not None
            assert other.prompt.transcript == "[S1] 2"


async def test_a_segment_that_leaves_no_room_for_others_does_not_lead() -> None:
    second = replace(segments(2).utterances[1], text="[S1] 2" + " word" * 80)
    plan = Plan((segments(1).utterances[0], second, *segments(4).utterances[2:]), 0.0, anchored=True)

    async with rig(lambda u: SILENT if level(u) == 0.1 else say(u)) as made:
        await made.tell(plan)

        prompts = [utterance.prompt for utterance in made.model.seen]
        assert prompts[:3] == [None, None, None]
        assert prompts[3] is not None
        assert prompts[3].transcript == "[S1] 3"


async def test_the_preview_needs_no_anchor() -> None:
    async with rig(step_s=0.002, name="preview") as made:
        await made.tell(segments(4, anchored=True))

        assert made.model.most == 4


async def test_ahead_bounds_what_is_begun() -> None:
    async with rig() as made:
        base = Utterance("", "aria", 7, prompt=PROMPT)
        made.narrator.ahead_s = 2.5
        narration = made.narrate(segments(8), base, live=True)
        async with aclosing(narration):
            await anext(narration)
            await until(made.is_idle)
            assert len(made.model.seen) == 2

            assert len([narrated async for narrated in narration])
            assert len(made.model.seen) == 8


async def test_what_comes_at_once_is_put_out_in_parts() -> None:
    whole = np.concatenate([part for part in speech(2.0) if isinstance(part, np.ndarray)])
    async with rig(lambda _: [whole]) as made:
        narration = await made.tell(segments(1), live=True)

    assert max(len(narrated.samples) for narrated in narration) == MAX_CHUNK
    assert len(narration) > 8
    assert made.meter.tokens == 8  # of the one chunk


async def test_leaving_early_frees_every_slot() -> None:
    async with rig(lambda u: speech(60), step_s=0.005) as made:
        narration = made.narrate(segments(9), Utterance("", "aria", 7, prompt=PROMPT), live=True)
        await anext(narration)
        assert made.engine.active == 4

        await narration.aclose()

        await until(made.is_idle, timeout_s=1)
        assert len(made.model.seen) == 4


async def test_being_cancelled_frees_every_slot() -> None:
    async with rig(lambda u: speech(60), step_s=0.005) as made:
        telling = asyncio.create_task(made.tell(segments(9), Utterance("", "aria", 7, prompt=PROMPT)))

        async def is_full() -> bool:
            return made.engine.active == 4

        await until(is_full)
        telling.cancel()

        await until(made.is_idle, timeout_s=1)


async def test_being_cancelled_frees_the_audio_without_the_garbage_collector() -> None:
    async with rig(lambda u: speech(60), step_s=0.005) as made:
        with without_collector():
            telling = asyncio.create_task(made.tell(segments(9), Utterance("", "aria", 7, prompt=PROMPT)))

            async def has_said_something() -> bool:
                return made.engine.work.samples > 0

            await until(has_said_something)
            telling.cancel()
            del telling
            await until(made.is_idle, timeout_s=1)
            await until_freed(Segment)


async def test_a_failure_frees_the_audio_without_the_garbage_collector() -> None:
    async with rig(lambda u: [*speech(1.0), ServerError("no more")]) as made:
        with without_collector():
            with pytest.raises(ServerError, match="no more") as raised:
                await made.tell(segments(3), Utterance("", "aria", 7, prompt=PROMPT))
            del raised
            await until_freed(Segment)


async def test_an_error_is_raised_at_its_place_and_what_follows_is_given_up() -> None:
    def fail_third(utterance: Utterance) -> list[Part]:
        if level(utterance) == 0.3:
            return [*speech(0.2, 0.3), ServerError("no more")]
        return speech(60, 0.4) if level(utterance) > 0.3 else say(utterance)

    async with rig(fail_third, step_s=0.002) as made:
        heard: list[Narrated] = []

        async def listen() -> None:
            async for narrated in made.narrate(segments(5), Utterance("", "aria", 7, prompt=PROMPT)):
                heard.append(narrated)

        with pytest.raises(ServerError, match="no more"):
            await listen()

        told = sound(heard)
        assert np.abs(told[:SAMPLE_RATE]).max() == pytest.approx(0.1, abs=0.01)
        assert np.abs(told[-SAMPLE_RATE // 5 :]).max() == pytest.approx(0.3, abs=0.01)
        await until(made.is_idle, timeout_s=1)
        assert len(made.model.seen) <= 5


def bad_with(*seeds: int) -> Script:
    return lambda utterance: SILENT if utterance.seed in seeds else say(utterance)


async def test_a_bad_segment_is_made_again_with_the_next_seed() -> None:
    async with rig(bad_with(7), retries=2) as made:
        narration = await made.tell(segments(1))

        assert [utterance.seed for utterance in made.model.seen] == [7, 8]
        assert levels(narration) == pytest.approx([0.1], abs=0.01)
        assert (made.meter.retries, made.meter.faults) == (1, set())


async def test_seeds_go_round_at_their_end() -> None:
    async with rig(bad_with(2**32 - 1), retries=2) as made:
        await made.tell(segments(1), Utterance("", "aria", 2**32 - 1))

        assert [utterance.seed for utterance in made.model.seen] == [2**32 - 1, 0]


async def test_it_is_made_again_only_so_often() -> None:
    async with rig(bad_with(7, 8, 9), retries=2) as made:
        narration = await made.tell(segments(1))

        assert [utterance.seed for utterance in made.model.seen] == [7, 8, 9]
        np.testing.assert_array_equal(sound(narration), NOTHING)


async def test_what_is_heard_live_is_not_taken_back_but_what_follows_may_be() -> None:
    async with rig(bad_with(7), retries=2) as made:
        narration = await made.tell(segments(2), Utterance("", "aria", 7, prompt=PROMPT), live=True)

        assert sorted(utterance.text for utterance in made.model.seen) == ["[S1] 1.", "[S1] 2.", "[S1] 2."]
        assert levels(narration) == pytest.approx([0.2], abs=0.02)
        assert (made.meter.retries, made.meter.faults) == (1, {"silent"})


async def test_of_those_that_are_bad_the_one_with_the_fewest_faults_stays() -> None:
    def endless(seconds: float, level: float) -> list[Part]:
        return list(speech(seconds + 1, level)[: round(seconds * 10)])  # it does not fall silent

    def script(utterance: Utterance) -> list[Part]:
        return endless(1, 0.3) if utterance.seed == 8 else endless(6, 0.1)

    async with rig(script, retries=2) as made:
        narration = await made.tell(segments(1))

        assert [utterance.seed for utterance in made.model.seen] == [7, 8, 9]
        assert levels(narration) == pytest.approx([0.3], abs=0.01)
        assert (made.meter.retries, made.meter.faults) == (2, {"cut_off"})


async def test_a_bad_segment_stays_where_it_cannot_be_made_again() -> None:
    def script(utterance: Utterance) -> list[Part]:
        return speech(0.1, 0.3) if utterance.seed == 7 else [GpuOutOfMemory("full")]

    async with rig(script, retries=2) as made:
        narration = await made.tell(Plan((replace(segments(1).utterances[0], estimated_s=4.0),), 0.0))

        assert np.abs(sound(narration)).max() == pytest.approx(0.3, abs=0.02)
        assert (made.meter.retries, made.meter.faults) == (1, {"too_short"})


async def test_a_segment_whose_words_are_not_heard_is_bad_too() -> None:
    asked: list[str] = []

    async def exceeds_limit(samples: Samples, text: str) -> bool:
        asked.append(text)
        return float(np.abs(samples).max()) < 0.15  # the first segment

    async with rig(retries=1, exceeds_limit=exceeds_limit) as made:
        await made.tell(segments(2), Utterance("", "aria", 7, prompt=PROMPT))

        assert sorted(asked) == ["[S1] 1", "[S1] 1", "[S1] 2"]
        assert (made.meter.retries, made.meter.faults) == (1, {"misheard"})

        asked.clear()
        await made.tell(segments(2), Utterance("", "aria", 7, prompt=PROMPT), live=True)

        assert asked == ["[S1] 2"]
        assert made.meter.faults == set()


async def test_what_the_client_has_cut_short_is_not_made_again() -> None:
    async with rig(bad_with(7), retries=2) as made:
        await made.tell(segments(1), Utterance("", "aria", 7, max_tokens=20))

        assert [utterance.max_tokens for utterance in made.model.seen] == [20]
        assert made.meter.faults == set()


async def test_a_limit_of_tokens_is_for_each_segment_so_that_none_is_lost() -> None:
    async with rig() as made:
        narration = await made.tell(segments(3), Utterance("", "aria", 7, prompt=PROMPT, max_tokens=100))

        assert [utterance.max_tokens for utterance in made.model.seen] == [100, 100, 100]
        assert levels(narration) == pytest.approx([0.1, 0.2, 0.3], abs=0.02)


async def test_a_segment_is_not_longer_than_its_plan_allows_whatever_the_limit() -> None:
    async with rig() as made:
        await made.tell(segments(1), Utterance("", "aria", 7, max_tokens=10_000))

        assert [utterance.max_tokens for utterance in made.model.seen] == [300]


@pytest.mark.parametrize("live", [False, True])
async def test_without_a_guard_nothing_is_judged(live: bool) -> None:
    async with rig(bad_with(7)) as made:
        await made.tell(segments(1), live=live)

        assert made.meter.faults == set()


async def test_the_time_that_a_listener_takes_is_not_counted() -> None:
    async with rig(step_s=0.005) as made:
        made.narrator.ahead_s = 1.0
        narration = made.narrate(segments(2), live=True)
        async with aclosing(narration):
            async for _ in narration:
                await asyncio.sleep(0.05)

        counted = made.meter.total(speed=2.0)
        assert 0.1 <= counted.generation_s < 0.5  # of the steps; there were 20 parts to listen to
        assert counted.audio_s == pytest.approx(1.0, abs=0.1)
        assert counted.tokens == 160


@pytest.mark.parametrize("live", [False, True])
async def test_progress_never_falls_and_ends_with_1(live: bool) -> None:
    async with rig(retries=2) as made:
        narration = await made.tell(segments(4, pause_s=0.3, pause_after_s=0.5), live=live)

        progress = [narrated.progress for narrated in narration]
        assert progress == sorted(progress)
        assert progress[0] > 0
        assert progress[-1] == 1
        assert len(set(progress)) > 20


async def test_pauses_are_where_the_plan_has_them() -> None:
    async with rig() as made:
        together = sound(await made.tell(segments(3)))
        apart = sound(await made.tell(segments(3, pause_s=0.5, pause_after_s=0.25)))

        assert len(apart) - len(together) == pytest.approx(1.75 * SAMPLE_RATE, abs=3)
        assert not apart[: SAMPLE_RATE // 2].any()
        assert not apart[-SAMPLE_RATE // 4 :].any()


@pytest.mark.parametrize("speed", [0.5, 2.0])
async def test_pauses_that_are_asked_for_are_made_for_the_speed_at_which_they_are_heard(speed: float) -> None:
    async with rig() as made:
        plan = segments(3, pause_s=0.5, gap_s=0.25, pause_after_s=0.5)
        normal, changed = sound(await made.tell(plan)), sound(await made.tell(plan, speed=speed))

        assert len(changed) - len(normal) == pytest.approx(2.0 * (speed - 1) * SAMPLE_RATE, abs=3)


async def test_nothing_to_say_is_a_moment_of_silence() -> None:
    async with rig() as made:
        np.testing.assert_array_equal(sound(await made.tell(Plan((), 0.0))), NOTHING)


async def test_a_text_of_no_length_can_be_said() -> None:
    one = PlannedUtterance("[S1] 1", "", 0.0, 0.0, estimated_s=0.0, max_tokens=300)
    async with rig() as made:
        assert (await made.tell(Plan((one,), 0.0)))[-1].progress == 1


async def test_a_long_text_is_not_too_long_for_a_short_queue() -> None:
    async with rig(slots=1, max_waiting=1) as made:
        narration = await made.tell(segments(6), Utterance("", "aria", 7, prompt=PROMPT))

        assert levels(narration) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], abs=0.02)


async def test_a_full_queue_refuses_a_text_and_delays_one_that_was_begun() -> None:
    async with rig(slots=1, max_waiting=1, step_s=0.01) as made:
        base = Utterance("", "aria", 7, prompt=PROMPT)
        begun = asyncio.create_task(made.tell(segments(3), base))
        other = asyncio.create_task(made.tell(segments(1), base))
        while made.engine.active < 2:
            await asyncio.sleep(0.001)

        with pytest.raises(Overloaded):
            await made.tell(segments(1), base)
        assert levels(await begun) == pytest.approx([0.1, 0.2, 0.3], abs=0.02)
        other.cancel()


async def test_texts_share_a_full_engine() -> None:
    """A long text leaves the slots that others wait for; alone it has them all."""
    async with rig(step_s=0.005) as made:
        base = Utterance("", "aria", 7, prompt=PROMPT)
        long = asyncio.create_task(made.tell(segments(9), base))
        while made.engine.active < 4:
            await asyncio.sleep(0.001)

        await made.tell(segments(1), base)

        assert not long.done()
        assert len(made.model.seen) < 10  # in all
        await long


async def test_the_same_seed_gives_the_same_however_fast_it_is_heard() -> None:
    async with rig(bad_with(7), retries=1, step_s=0.001) as made:
        base = Utterance("", "aria", 7, prompt=PROMPT)
        fast = sound(await made.tell(segments(5), base, live=True))

        slow = []
        made.narrator.ahead_s = 1.0
        async with aclosing(made.narrate(segments(5), base, live=True)) as narration:
            async for narrated in narration:
                slow.append(narrated)
                await asyncio.sleep(0.005)

        np.testing.assert_array_equal(sound(slow), fast)
