"""Properties of the plan of any text, checked on thousands of random ones."""

import random
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dia_server.text.plan import NO_PROMPT, Plan, PromptSize, plan
from dia_server.text.speakers import CAST_TAG, Speakers, tag

TAG = re.compile(r"\[(S[12])\]")
GAP = r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]"
SPACE = rf"{GAP}*"
MARKUP = re.compile(
    rf"\[(S[1-9]|voice:(?:[\w.\-]|{GAP})+)\]|\[pause:{SPACE}[0-9]{{1,6}}(?:\.[0-9]{{1,6}})?{SPACE}m?s\]",
    re.IGNORECASE,
)
"""Markup as a client may send it."""

CLOSING = re.compile(r"[。、—”」)\]\"']")
"""Characters after which a text may be cut although no space follows."""

FRAGMENTS = [
    *("[S1]", "[S2]", "[s1]", "[S3]", "[S", "1]", "[voice:luna]"),
    *("[pause:1.5s]", "[pause:500ms]", "[pause:0s]", "[pause:", "s]"),
    *("a", "I", "Hello", "Dr.", "e.g.", "3.14", "U.S.", "1.", "$5,000"),
    *("https://a.b/c?d=e.f", "don't", "OK!", "The quick brown fox jumps, over the lazy dog."),
    *(".", "!", "?", "...", "…", ",", ";", ":", "—", " - "),
    *('"', "“Why?”", "(laughs)", ")", "[", "*"),
    *("你好。", "こんにちは、", "안녕하세요", "「はい」", "مرحبا؟", "नमस्ते।", "ΑΣ", "ǅ"),
    *("👩‍👩‍👧‍👦", "🇫🇷", "👍🏽", "e\u0301", "n\u0303o"),
    *("\u200d", "\u0301", "\u00a0", "\u3000", "\u2028", "\x00", "\x1c", "\ufeff"),
    *("x" * 90, "字" * 40, "\u0301" * 70, "🏽" * 20, "\u200d" * 50),
]  # fmt: skip

each_number_of_examples = pytest.mark.parametrize(
    "examples", [250, pytest.param(5000, marks=pytest.mark.full)]
)
"""Number of random texts: the long run is part of `make test-full`."""


def run(examples: int, prop: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
    """Check that `prop` holds for that many values of `strategies`."""
    quick = settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    quick(given(*strategies)(prop))()


def random_text(seed: int, most: int) -> str:
    """Return a text far longer than Hypothesis draws by itself."""
    chance = random.Random(seed)
    fragments = chance.sample(FRAGMENTS, k=chance.randint(1, 12))
    space = chance.choice(["", " ", " ", "\n"])
    return space.join(chance.choices(fragments, k=chance.randint(1, most)))


@cache
def is_said(character: str) -> bool:
    """Return whether `character` is visible or part of a visible one."""
    return not (
        character.isspace() or character == "\ufeff" or unicodedata.category(character) in {"Cc", "Cs"}
    )


def characters_by_speaker(
    text: str, markup: re.Pattern[str], names: Mapping[str, str] = MappingProxyType({})
) -> list[tuple[str, str]]:
    """Return each spoken character with its speaker, without `markup`; the first speaker is S1.

    `names` maps tags to speakers.
    """
    said, at, speaker = [], 0, "S1"
    for mark in [*markup.finditer(text), None]:
        said += [(speaker, one) for one in text[at : mark.start() if mark else None] if is_said(one)]
        if mark:
            at = mark.end()
            if mark[1]:
                called = mark[1].upper() if ":" not in mark[1] else "".join(mark[1].lower().split())
                speaker = names.get(called, called)
    return said


def encoded(text: str) -> int:
    return len(text.replace("[S1]", "1").replace("[S2]", "2").encode())


def check(
    text: str,
    prompt: Callable[[Speakers], PromptSize],
    names: Mapping[str, str] = MappingProxyType({}),
    columns: int = 3072,
) -> None:
    made = plan(tag(text, "S1", CAST_TAG), prompt, names, columns)
    check_words(text, made, names)
    check_tags(made)
    check_budget(made, prompt, columns)
    assert all(0 <= utterance.pause_s <= 10 for utterance in made.utterances)
    assert 0 <= made.pause_after_s <= 10


def check_words(text: str, made: Plan, names: Mapping[str, str]) -> None:
    """Check that no character is lost, repeated or given to another speaker, and that words stay whole if
    they fit."""
    if not any(is_said(one) and unicodedata.category(one) != "Cf" for one in MARKUP.sub("", text)):
        assert not made.utterances  # only invisible characters
        return
    segments = [utterance.text for utterance in made.utterances]
    assert [
        one
        for segment in made.utterances
        for one in characters_by_speaker(segment.text, TAG, segment.speakers)
    ] == characters_by_speaker(text, MARKUP, names)
    words = "".join(one if is_said(one) else " " for one in MARKUP.sub(" ", text)).split()
    if max(map(len, words), default=0) < 8:  # any prompt leaves room for seven emoji
        said = " ".join(TAG.sub(" ", segment) for segment in segments)
        assert CLOSING.sub(r"\g<0> ", said).split() == CLOSING.sub(r"\g<0> ", " ".join(words)).split()


def check_tags(made: Plan) -> None:
    for utterance in made.utterances:
        assert utterance.text == " ".join(utterance.text.split())
        before, *tagged = TAG.split(utterance.text)
        speakers, turns = tagged[::2], tagged[1::2]
        assert before == ""
        assert all(turn.strip() for turn in turns)
        assert all(one != other for one, other in pairwise(speakers))
        assert 1 <= len(turns) <= 8
        assert re.fullmatch(r"\.?( \[S[12]\])?", utterance.ending)
        assert not utterance.ending.endswith(f"[{speakers[-1]}]")


def check_budget(made: Plan, prompt: Callable[[Speakers], PromptSize], columns: int) -> None:
    for index, utterance in enumerate(made.utterances):
        size = prompt(utterance.speakers)
        transcript, frames = size.transcript, size.frames
        if index and made.anchored:
            transcript = f"{transcript} {made.utterances[0].text}".strip()
            frames += made.utterances[0].max_tokens - 16
        assert encoded(f"{transcript} {utterance.text}{utterance.ending}".strip()) <= 1024
        assert 0 <= utterance.estimated_s <= 20
        assert utterance.estimated_s * 86.13 + 16 <= utterance.max_tokens <= columns - frames


def no_prompt(_: Speakers) -> PromptSize:
    return NO_PROMPT


@each_number_of_examples
def test_plan_of_any_unicode(examples: int) -> None:
    def holds(text: str) -> None:
        check(text, no_prompt)

    run(examples, holds, st.text(max_size=200))


@each_number_of_examples
def test_plan_of_any_mix_of_hard_fragments(examples: int) -> None:
    def holds(fragments: list[str], space: str) -> None:
        check(space.join(fragments), no_prompt)

    run(examples, holds, st.lists(st.sampled_from(FRAGMENTS), max_size=25), st.sampled_from(["", " "]))


@each_number_of_examples
def test_plan_of_any_long_text(examples: int) -> None:
    def holds(seed: int, most: int) -> None:
        check(random_text(seed, most), no_prompt)

    run(examples, holds, st.integers(0, 2**32), st.sampled_from([15, 15, 200]))


@each_number_of_examples
def test_plan_beside_any_voice_prompt(examples: int) -> None:
    """The prompt often leaves hardly a byte to spare."""

    def holds(seed: int, transcript_bytes: int, frames: int) -> None:
        size = PromptSize("[S1] " + "x" * transcript_bytes, frames)
        check(random_text(seed, 40), lambda _: size)

    sizes = st.integers(1, 957) | st.integers(940, 957)
    run(examples, holds, st.integers(0, 2**32), sizes, st.integers(43, 2700))


@each_number_of_examples
def test_plan_for_slots_with_fewer_columns(examples: int) -> None:
    def holds(seed: int, frames: int) -> None:
        size = PromptSize("[S1] Hello." if frames else "", frames)
        check(random_text(seed, 60), lambda _: size, columns=2048)

    run(examples, holds, st.integers(0, 2**32), st.just(0) | st.integers(43, 1680))


CAST = ("[S1]", "[S2]", "[S3]", "[s4]", "[S9]", "[voice:luna]", "[VOICE: kai ]", "[voice:anna-2]")
NAMES = {"voice:luna": "S1", "voice:kai": "S10", "S9": "S3"}


@each_number_of_examples
def test_plan_of_any_cast_beside_any_voice_prompts(examples: int) -> None:
    """Some prompts leave hardly a byte to spare, and most pairs of the long ones leave none."""

    def holds(seed: int, most: int, longest: int) -> None:
        chance = random.Random(seed)
        sizes: dict[str, tuple[int, int]] = {}

        def prompt(speakers: Speakers) -> PromptSize:
            for speaker in speakers.values():
                sizes.setdefault(speaker, (chance.randint(1, longest), chance.randint(43, 2 * longest)))
            transcripts = [f"[{tag}] {'x' * sizes[name][0]}" for tag, name in speakers.items()]
            return PromptSize(" ".join(transcripts), sum(sizes[name][1] for name in speakers.values()))

        fragments = [*chance.sample(FRAGMENTS, k=8), *chance.sample(CAST, k=6)]
        text = f"{' '.join(CAST[:4])} [S5] a [S6] b [S7] c {' '.join(chance.choices(fragments, k=most))}"
        check(text, prompt, NAMES)

    run(examples, holds, st.integers(0, 2**32), st.sampled_from([15, 60]), st.sampled_from([60, 500, 950]))
