import pytest

from dia_server.errors import Invalid
from dia_server.text.budget import encoded_length
from dia_server.text.plan import Plan, PromptSize, plan
from dia_server.text.speakers import tag


def planned(text: str, transcript: str = "", prompt_frames: int = 0) -> Plan:
    return plan(tag(text, "S1"), lambda _: PromptSize(transcript, prompt_frames))


def texts(text: str) -> list[str]:
    return [utterance.text for utterance in planned(text).utterances]


def sentence(number: int) -> str:
    return f"This is sentence number {number} of a story that takes its time to be told."


def test_a_short_text_is_one_segment() -> None:
    (only,) = planned("Hello there. How are you?").utterances

    assert only.text == "[S1] Hello there. How are you?"
    assert (only.pause_s, only.gap_s) == (0, 0)
    assert only.estimated_s == pytest.approx(25 / 15, abs=0.1)


def test_a_very_short_text_gets_a_full_stop_and_a_low_limit() -> None:
    (only,) = planned("Hi").utterances

    assert (only.text, only.ending) == ("[S1] Hi", ".")
    assert only.max_tokens < 4 * 86.13


def test_a_text_without_words_has_no_segments() -> None:
    assert planned("").utterances == ()
    assert planned("[S1] [pause:1s] [S2]").utterances == ()


def test_a_dialogue_stays_together_and_ends_with_the_next_speaker_s_tag() -> None:
    (only,) = planned("[S1] How are you? [S2] Fine. (laughs) [S1] Good.").utterances

    assert only.text + only.ending == "[S1] How are you? [S2] Fine. (laughs) [S1] Good. [S2]"


def test_a_monologue_ends_without_a_tag() -> None:
    assert planned("[S2] I talk to myself.").utterances[0].ending == ""


def test_a_tag_that_repeats_the_speaker_is_dropped() -> None:
    assert texts("[S1] One. [S1] Two. [S2] [S1] Three. [S2]") == ["[S1] One. Two. Three."]


def test_segments_of_s2_alone_keep_the_tag_s2() -> None:
    assert texts("[S2] I am the second. [pause:1s] Still I am.") == [
        "[S2] I am the second.",
        "[S2] Still I am.",
    ]


def test_long_turns_are_cut_between_speakers() -> None:
    first, second = (" ".join(sentence(n) for n in numbers) for numbers in (range(3), range(3, 6)))

    made = planned(f"[S1] {first} [S2] {second}", transcript="[S1] Hello.", prompt_frames=500)

    assert [one.text for one in made.utterances] == [f"[S1] {first}", f"[S2] {second}"]


def test_a_long_text_is_cut_after_sentences_into_segments_of_5_to_20_s() -> None:
    plan = planned(" ".join(map(sentence, range(40))))

    assert len(plan.utterances) > 10
    for utterance in plan.utterances:
        assert utterance.text.endswith("told.")
        assert 5 <= utterance.estimated_s <= 20
        assert utterance.gap_s == (0 if utterance is plan.utterances[0] else 0.3)


def test_a_sentence_that_is_too_long_is_cut_between_clauses() -> None:
    clause = "and then they walked on through the forest for a while"

    segments = texts(f"At first they waited, {', '.join([clause] * 12)}.")

    assert len(segments) > 2
    assert all(segment.endswith(("while,", "while.")) for segment in segments)


def test_a_clause_that_is_too_long_is_cut_between_words() -> None:
    text = "word " * 200

    segments = texts(text)

    assert " ".join(segment.removeprefix("[S1] ") for segment in segments) == text.strip()
    assert len(segments) < 10


def test_a_word_that_is_too_long_is_cut_between_characters() -> None:
    family = "👩‍👩‍👧"

    segments = texts(family * 200)

    assert "".join(segment.removeprefix("[S1] ") for segment in segments) == family * 200
    assert all(len(segment.removeprefix("[S1] ")) % len(family) == 0 for segment in segments)


def test_pauses_lie_between_segments_and_around_the_whole() -> None:
    plan = planned("[pause:250ms] One. [pause:1.5s] [S2] Two [PAUSE:1s][pause:2s] three. [pause:99s]")

    assert [(one.pause_s, one.text + one.ending) for one in plan.utterances] == [
        (0.25, "[S1] One."),
        (1.5, "[S2] Two."),
        (3.0, "[S2] three."),
    ]
    assert plan.pause_after_s == 10
    assert plan.pauses_s == 14.75
    assert not any(one.gap_s for one in plan.utterances)


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_speed_changes_speech_and_gaps_but_not_pause_markup(speed: float) -> None:
    plan = planned(f"{' '.join(map(sentence, range(10)))} [pause:2s] The end.")

    assert plan.pauses_s == 2
    assert sum(one.gap_s for one in plan.utterances) > 0.3
    assert plan.duration_s(speed) - 2 == pytest.approx((plan.duration_s(1) - 2) / speed)


def test_a_speaker_named_before_a_pause_speaks_after_it() -> None:
    assert texts("[S1] One. [S2] [pause:1s] Two.") == ["[S1] One.", "[S2] Two."]


def test_malformed_pause_markup_is_spoken() -> None:
    assert texts("[pause:soon] [pause:1]") == ["[S1] [pause:soon] [pause:1]"]


def test_many_short_turns_are_spread_over_the_segments() -> None:
    plan = planned(" ".join(f"[S{1 + n % 2}] Is this a turn of about two seconds?" for n in range(20)))

    assert all(2 <= utterance.text.count("[S") <= 5 for utterance in plan.utterances)


def test_without_a_prompt_the_other_segments_leave_room_for_the_anchor() -> None:
    first, *others = planned(" ".join(map(sentence, range(40)))).utterances

    assert 5 <= first.estimated_s <= 10
    assert first.max_tokens + max(other.max_tokens for other in others) <= 3072


def test_without_a_prompt_the_anchor_has_both_speakers_if_possible() -> None:
    plan = planned(f"[S1] {sentence(1)} [S2] {' '.join(map(sentence, range(2, 20)))}")

    assert "[S1]" in plan.utterances[0].text
    assert "[S2]" in plan.utterances[0].text


def dialogue(turns: int) -> str:
    return " ".join(f"[S{1 + n % 2}] {sentence(n)}" for n in range(turns))


@pytest.mark.parametrize("transcript", ["[S1] Hello.", "[S2] Hello."])
def test_an_anchor_includes_the_speaker_missing_from_the_prompt(transcript: str) -> None:
    plan = planned(dialogue(12), transcript, prompt_frames=430)

    assert plan.anchored
    first, *others = plan.utterances
    assert first.text.count("[S1]") >= 1 <= first.text.count("[S2]")
    assert first.estimated_s <= 10
    assert 430 + first.max_tokens + max(other.max_tokens for other in others) <= 3072


@pytest.mark.parametrize(
    ("transcript", "text"),
    [
        ("[S1] Hello. [S2] Hi.", dialogue(12)),
        ("[S1] Hello.", " ".join(map(sentence, range(12)))),
        ("[S1] Hello.", f"{sentence(1) * 5} [S2] I am heard but once. [S1] {sentence(2) * 5}"),
    ],
)
def test_no_anchor_is_planned_where_the_prompt_suffices(transcript: str, text: str) -> None:
    plan = planned(text, transcript, prompt_frames=430)

    assert len(plan.utterances) > 2
    assert not plan.anchored


def test_a_long_prompt_leaves_no_room_for_an_anchor() -> None:
    assert planned(dialogue(12), "[S1] Hello.", prompt_frames=1000).anchored
    assert not planned(dialogue(12), "[S1] Hello.", prompt_frames=1600).anchored


def test_a_long_prompt_makes_short_segments() -> None:
    text = " ".join(map(sentence, range(10)))

    plan = planned(text, transcript="[S1] " + "x" * 400, prompt_frames=2584)

    assert all(one.estimated_s <= 4.4 for one in plan.utterances)
    assert all(2584 + one.max_tokens <= 3072 for one in plan.utterances)


@pytest.mark.parametrize(("transcript", "frames"), [("x", 2900), ("x" * 1000, 500)])
def test_a_prompt_that_leaves_no_room_for_speech_is_refused(transcript: str, frames: int) -> None:
    with pytest.raises(Invalid, match="leaves no room"):
        planned("Hello", transcript=transcript, prompt_frames=frames)


@pytest.mark.parametrize(
    "text", [".", "a", "a ", "a. ", '."', "\u0301", "[S1] a [S2] b ", "[pause:1s] a ", "("]
)
def test_planning_time_is_linear_in_the_text(text: str) -> None:
    """A step quadratic in the text would take minutes."""
    assert len(planned(text * (100_000 // len(text))).utterances) > 100


@pytest.mark.parametrize("text", ["[S1] {} [S2] you", "[S2] {}", "[S1] I [S2] {} [S1] you"])
def test_a_segment_uses_the_budget_to_the_last_byte_and_no_more(text: str) -> None:
    transcript = "[S1] " + "x" * 957  # 959 bytes and a space leave 64
    most = 0
    for length in range(1, 80):
        for one in planned(text.format("x" * length), transcript, prompt_frames=43).utterances:
            most = max(most, encoded_length(f"{transcript} {one.text}{one.ending}"))

    assert 1021 <= most <= 1024
