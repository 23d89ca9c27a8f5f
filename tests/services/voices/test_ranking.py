import pytest

from dia_server.services.voices.candidates import Candidate, CandidateStatus
from dia_server.services.voices.ranking import rank


def candidate(
    seed: int,
    *,
    pitch: float | None = 200.0,
    word_errors: float | None = None,
    faults: tuple[str, ...] = (),
    style: str = "neutral",
    status: CandidateStatus = "completed",
) -> Candidate:
    return Candidate(
        voice_id="me",
        transcript="So it is.",
        style=style,
        seed=seed,
        pitch=pitch,
        word_errors=word_errors,
        faults=faults,
        status=status,
    )


def order(*candidates: Candidate, pitches: tuple[float, ...] = ()) -> list[int]:
    return [one.seed for one in rank(candidates, pitches)]


def test_fewer_faults_go_first_then_fewer_word_errors() -> None:
    assert order(
        candidate(1, faults=("clipped", "cut_off"), word_errors=0.0),
        candidate(2, faults=("clipped",), word_errors=0.0),
        candidate(3, word_errors=0.4),
        candidate(4, word_errors=0.1),
    ) == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("style", "expected"), [("deep", [1, 2, 3]), ("Bright", [3, 2, 1]), ("calm", [2, 1, 3])]
)
def test_the_style_decides_by_pitch(style: str, expected: list[int]) -> None:
    candidates = [candidate(seed, pitch=pitch, style=style) for seed, pitch in ((1, 100), (3, 300), (2, 170))]

    assert order(*candidates, pitches=(120.0, 290.0)) == expected


def test_a_small_difference_in_words_does_not_outweigh_the_pitch() -> None:
    assert order(
        candidate(1, word_errors=0.0, pitch=200, style="deep"),
        candidate(2, word_errors=0.04, pitch=100, style="deep"),
    ) == [2, 1]


def test_an_unknown_pitch_goes_last_and_equals_keep_their_order() -> None:
    assert order(candidate(1, pitch=None), candidate(2), candidate(3)) == [2, 3, 1]


def test_pending_and_failed_ones_follow() -> None:
    assert order(
        candidate(1, status="failed"), candidate(2, status="pending"), candidate(3, faults=("silent",))
    ) == [3, 2, 1]
