import pytest

from dia_server.text.speakers import Turn, last_speaker, tag, turns


@pytest.mark.parametrize(
    ("text", "tagged"),
    [
        ("Hello", "[S2] Hello"),
        ("2*3  is\n\nsix", "[S2] 2*3 is six"),
        ("[s1] Hello [s2] Hi", "[S1] Hello [S2] Hi"),
        ("Hello [S1] Hi", "[S2] Hello [S1] Hi"),
        ("\x00\ud800a\ufeffb", "[S2] a b"),
        (" [S1] ", ""),
        ("[S1] [pause:2s] [pause:500ms]", ""),
        ("[S1] \u200b\u2060", ""),
        ("", ""),
    ],
)
def test_text_is_tagged_and_cleaned(text: str, tagged: str) -> None:
    assert tag(text, "S2") == tagged


def test_turns_alternate() -> None:
    assert turns("a [S1] b [S2] c [S2] d [S1] [S2] e [S1] f", "S1") == [
        Turn("S1", "a b"),
        Turn("S2", "c d e"),
        Turn("S1", "f"),
    ]


def test_the_last_tag_names_the_last_speaker() -> None:
    assert last_speaker("[S1] a [S2]", "S1", {}) == "S2"
    assert last_speaker("a", "S2", {}) == "S2"
