"""Plans of texts with more than two speakers."""

from collections.abc import Mapping

import pytest

from dia_server.errors import Invalid
from dia_server.text.plan import NO_NAMES, PromptSize, plan
from dia_server.text.speakers import CAST_TAG, Speakers, recast, tag


def sentence(speaker: str, number: int = 0) -> str:
    return f"[{speaker}] This is what {speaker} has to say about matter {number} today."


def spoken(
    text: str, frames: int = 430, names: Mapping[str, str] = NO_NAMES
) -> list[tuple[str, dict[str, str]]]:
    """Return text and speakers of the segments; each speaker's prompt has that many `frames`."""

    def prompt(speakers: Speakers) -> PromptSize:
        transcript = " ".join(f"[{tag}] Hello." for tag in speakers)
        return PromptSize(transcript, frames * len(speakers))

    made = plan(tag(text, "S1", CAST_TAG), prompt, names)
    assert not made.anchored
    return [(one.text, {**one.speakers}) for one in made.utterances]


@pytest.mark.parametrize(
    ("speakers", "cast"),
    [
        (["S1", "S2"], {"S1": "S1", "S2": "S2"}),
        (["S2"], {"S2": "S2"}),
        (["S3"], {"S1": "S3"}),
        (["S2", "S3"], {"S1": "S3", "S2": "S2"}),
        (["S4", "S1"], {"S1": "S1", "S2": "S4"}),
        (["S12", "S3"], {"S1": "S3", "S2": "S12"}),
        (["S1", "S2", "S3"], None),
    ],
)
def test_s1_and_s2_keep_their_tags_and_others_get_the_free_ones(
    speakers: list[str], cast: dict[str, str] | None
) -> None:
    assert recast(speakers) == cast


def test_a_segment_ends_before_a_third_speaker() -> None:
    text = "[S1] One here. [S2] Two here. [S1] One again. [S3] Three is here. [S2] Two again."

    assert spoken(text) == [
        ("[S1] One here. [S2] Two here. [S1] One again.", {"S1": "S1", "S2": "S2"}),
        ("[S1] Three is here. [S2] Two again.", {"S1": "S3", "S2": "S2"}),
    ]


def test_a_speaker_alone_has_the_prompt_of_no_other() -> None:
    text = f"{sentence('S1')} {sentence('S2')} [pause:1s] {sentence('S3')}"

    assert [speakers for _, speakers in spoken(text)] == [{"S1": "S1", "S2": "S2"}, {"S1": "S3"}]


def test_two_who_call_the_same_speaker_are_one_turn() -> None:
    text = "[S3] One. [voice:luna] Two. [S4] Three. [S5] Four."

    assert spoken(text, names={"voice:luna": "S3"})[0][0].startswith("[S1] One. Two.")


def test_speakers_whose_prompts_leave_no_room_together_speak_apart() -> None:
    text = " ".join(sentence(f"S{1 + n % 3}", n) for n in range(6))

    together = spoken(text, 430)
    apart = spoken(text, 1500)

    assert max(len(speakers) for _, speakers in together) == 2
    assert [speakers for _, speakers in apart] == [{"S1": "S1"}, {"S2": "S2"}, {"S1": "S3"}] * 2


def test_two_speakers_whose_prompts_leave_no_room_together_speak_apart() -> None:
    text = f"{sentence('S1')} {sentence('S2')} {sentence('S1')}"

    assert len(spoken(text, 430)) == 1
    assert [speakers for _, speakers in spoken(text, 1500)] == [{"S1": "S1"}, {"S2": "S2"}, {"S1": "S1"}]


def test_one_prompt_that_leaves_no_room_for_speech_is_refused() -> None:
    with pytest.raises(Invalid, match="leaves no room"):
        spoken("[S1] One. [S2] Two. [S3] Three.", 2900)
