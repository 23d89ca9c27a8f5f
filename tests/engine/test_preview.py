from collections.abc import Iterator
from itertools import pairwise

import espeakng_loader
import numpy as np
import pytest

from dia_server.engine.espeak import Espeak
from dia_server.engine.preview import MAX_CLAUSE, VOICES, Clause, Preview, clauses, load
from dia_server.engine.types import Chunk, Flow, Samples, Utterance
from dia_server.errors import AudioProcessingError, ModelNotLoaded, UnspeakableText
from dia_server.units import HOP, SAMPLE_RATE
from tests import hearing
from tests.hearing import SEMITONE, SENTENCES, median_pitch, say, words_per_minute


@pytest.fixture(scope="module")
def preview() -> Iterator[Preview]:
    preview = Preview(slots=4)
    yield preview
    preview.close()


def speak(
    preview: Preview, text: str, voice: str = "aria", max_tokens: int | None = None
) -> tuple[Samples, list[Chunk]]:
    chunks = hearing.speak(preview, Utterance(text, voice, seed=0, max_tokens=max_tokens))
    return np.concatenate([chunk.samples for chunk in chunks]), chunks


def test_it_speaks_for_as_long_as_people_would(preview: Preview) -> None:
    samples, _ = speak(preview, "[S1] The quick brown fox jumps over the lazy dog.")

    assert 2 < len(samples) / SAMPLE_RATE < 5
    assert 0.1 < np.abs(samples).max() <= 1


def test_each_sentence_is_a_step_and_progress_grows(preview: Preview) -> None:
    _, chunks = speak(preview, "[S1] One thing. Another thing! [S2] Really?")

    progress = [chunk.progress for chunk in chunks]
    assert len(chunks) == 3
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert all(chunk.tokens == -(-len(chunk.samples) // HOP) for chunk in chunks)


def test_a_text_that_crashes_espeak_is_refused_and_the_others_are_said(preview: Preview) -> None:
    preview.admit(0, Utterance("[S1] ---नमस्ते", "aria", seed=0))
    preview.admit(1, Utterance("[S1] One. Two. Three.", "aria", seed=0))
    outcomes: dict[int, list[Chunk | Exception]] = {0: [], 1: []}
    while not (outcomes[0] and len(outcomes[1]) == 3):
        for slot, outcome in preview.step().items():
            outcomes[slot].append(outcome)
            if isinstance(outcome, Exception) or outcome.done:
                preview.release(slot)

    (refused,) = outcomes[0]
    assert isinstance(refused, UnspeakableText)
    assert "crashed 2 times" in str(refused)
    said = [chunk.samples for chunk in outcomes[1] if isinstance(chunk, Chunk)]
    assert np.array_equal(np.concatenate(said), speak(preview, "[S1] One. Two. Three.")[0])


def test_clients_take_turns_and_then_their_texts_do() -> None:
    preview = Preview(slots=4, workers=1)
    long = Flow("crowd")
    for slot, flow in enumerate([long, long, Flow("crowd"), Flow("other")]):
        preview.admit(slot, Utterance("[S1] One. Two. Three. Four.", "aria", seed=0, flow=flow))

    slots = [slot for _ in range(8) for slot in preview.step()]

    preview.close()
    assert slots == [0, 3, 2, 3, 0, 3, 2, 3]  # the long text's second part waits for its first


def test_a_client_whose_texts_are_short_has_no_more_turns_than_others() -> None:
    preview = Preview(slots=4, workers=1)
    preview.admit(0, Utterance("[S1] One. Two. Three. Four.", "aria", seed=0, flow=Flow("other")))
    for slot in (1, 2, 3):
        preview.admit(slot, Utterance("[S1] One.", "aria", seed=0, flow=Flow("crowd")))
    slots = []
    for _ in range(6):
        ((slot, chunk),) = preview.step().items()
        slots.append(slot)
        if isinstance(chunk, Chunk) and chunk.done:
            preview.release(slot)

    preview.close()
    assert slots == [0, 1, 0, 2, 0, 3]


def test_a_long_text_is_not_starved_by_endless_short_ones() -> None:
    preview = Preview(slots=3, workers=1)
    preview.admit(0, Utterance("[S1] " + "One. " * 50, "aria", seed=0, flow=Flow("one")))
    said: list[int] = []
    free = {1, 2}
    for _ in range(12):
        while free:
            preview.admit(free.pop(), Utterance("[S1] One.", "aria", seed=0, flow=Flow("one")))
        said += preview.step()
        if said[-1]:
            preview.release(said[-1])
            free.add(said[-1])

    preview.close()
    assert said.count(0) >= 3


def test_every_voice_sounds_different(preview: Preview) -> None:
    said = {
        voice: speak(preview, "[S1] Good morning to all of you.", voice)[0].tobytes()
        for voice in [*VOICES, "custom_1", "custom_2"]
    }

    assert len(set(said.values())) == len(said)


def test_a_voice_alone_sounds_the_same_with_any_tag(preview: Preview) -> None:
    first, second = (speak(preview, f"[{tag}] Good morning.", "aria")[0] for tag in ("S1", "S2"))

    assert np.array_equal(first, second)


def test_any_two_voices_are_two_semitones_apart(preview: Preview) -> None:
    pitches = sorted(
        median_pitch(say(preview, "Good morning to all of you, my friends.", voice)) for voice in VOICES
    )

    assert all(higher / lower > SEMITONE**2 for lower, higher in pairwise(pitches))


@pytest.mark.parametrize("voice", VOICES)
def test_a_voice_speaks_no_faster_than_people_do(preview: Preview, voice: str) -> None:
    recordings = [say(preview, sentence, voice) for sentence in SENTENCES]

    assert 140 < words_per_minute(SENTENCES, recordings) < 200


def test_the_same_request_gives_the_same_audio(preview: Preview) -> None:
    assert np.array_equal(speak(preview, "[S1] Again.")[0], speak(preview, "[S1] Again.")[0])


@pytest.mark.parametrize("text", ["[S1] .", "[S1] (laughs)", "[S1] 🎉", "[S1]  [S2] "])
def test_unpronounceable_text_is_a_pause(preview: Preview, text: str) -> None:
    samples, _ = speak(preview, text)

    assert len(samples) >= SAMPLE_RATE // 4


@pytest.mark.parametrize("sound", ["(laughs)", "(laugh)", "(Clearing throat)", "( SIGHS )"])
def test_sounds_are_left_out_in_any_form(sound: str) -> None:
    (only,) = clauses(f"[S1] Well {sound} yes.", "aria")

    assert only.text.split() == ["Well", "yes."]


def test_max_tokens_ends_it(preview: Preview) -> None:
    samples, chunks = speak(preview, "[S1] " + "One two three. " * 20, max_tokens=100)

    assert 95 * HOP < len(samples) <= 100 * HOP
    assert sum(chunk.tokens for chunk in chunks) == 100


def test_a_text_without_punctuation_is_cut_between_words_and_nothing_is_lost() -> None:
    words = [f"word{n}" for n in range(300)]

    parts = [clause.text for clause in clauses("[S1] " + " ".join(words), "aria")]

    assert all(len(part) <= MAX_CLAUSE for part in parts)
    assert " ".join(parts).split() == words


def test_one_endless_word_is_cut_and_nothing_is_lost() -> None:
    parts = [clause.text for clause in clauses("[S1] " + "a" * 1000, "aria")]

    assert "".join(parts) == "a" * 1000


def test_each_turn_is_spoken_by_its_speaker() -> None:
    first, second = VOICES["kai"], VOICES["luna"]

    text = "[S1] Hi. [S2] Hello! How are you? [S1] Fine."

    assert clauses(text, "kai+luna") == [
        Clause(first, "Hi.", 5),
        Clause(second, "Hello!", 14),
        Clause(second, "How are you?", 21),
        Clause(first, "Fine.", 39),
    ]


def test_a_missing_library_is_reported_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: "/nowhere/espeak-ng.so")

    with pytest.raises(AudioProcessingError, match=r"cannot be loaded: /nowhere/espeak-ng\.so"):
        Espeak()
    with pytest.raises(ModelNotLoaded, match=r"/nowhere/espeak-ng\.so\. Install espeakng-loader anew"):
        load(2)(lambda _: None)
