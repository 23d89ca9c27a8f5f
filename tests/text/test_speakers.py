import pytest

from dia_server.text.speakers import tag


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Hello", "[S2] Hello"),
        ("  Hello,\n\n  world ", "[S2] Hello, world"),
        ("*waves* Hello", "[S2] waves Hello"),
        ("[S1] Hi. [S2] Hello.", "[S1] Hi. [S2] Hello."),
        ("[s1] Hi.", "[S1] Hi."),
        ("Hi. [S1] Hello.", "[S2] Hi. [S1] Hello."),
        ("a\x00b\x1fc", "[S2] a b c"),
        ("[S3] what", "[S2] [S3] what"),
    ],
)
def test_text_is_cleaned_and_tagged(text: str, spoken: str) -> None:
    assert tag(text, "S2") == spoken


@pytest.mark.parametrize("text", ["", "  ", "***", "\x00", "[S1]", "[S1] [S2] *"])
def test_nothing_to_say_is_empty(text: str) -> None:
    assert tag(text, "S1") == ""
