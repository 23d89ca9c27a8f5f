import pytest

from dia_server.text.word_errors import word_error_rate


@pytest.mark.parametrize(
    ("text", "transcript", "rate"),
    [
        ("[S1] Hello, world!", "hello world", 0),
        ("[S1] Did you? [S2] (laughs) I DIDN\u2019T [pause:1.5s] know.", "Did you? I didn't know.", 0),
        ("one two three four", "one two four", 0.25),
        ("one two three four", "one two five three four", 0.25),
        ("one two three four", "one to three four", 0.25),
        ("one two three four", "", 1),
        ("one two", "and so on and so on and so on", 4.5),
        ("He said (quietly) yes.", "He said yes.", 0.25),
        ("(clears throat) (sighs)", "Thank you for watching.", 0),
        ("Well (laugh) yes. (Clearing throat)", "Well yes.", 0),
        ("", "anything", 0),
        ("Straße, café", "STRASSE cafe\u0301", 0),
        ("你好世界", "你好\u3002世間", 0.25),
        ("3 cats", "three cats", 0.5),
    ],
)
def test_word_error_rate_counts_wrong_words(text: str, transcript: str, rate: float) -> None:
    assert word_error_rate(text, transcript) == pytest.approx(rate)


def test_a_whole_text_is_compared_quickly() -> None:
    assert word_error_rate("word " * 400, "words " * 800) == 2
