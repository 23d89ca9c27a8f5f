import pytest

from dia_server.text.script import tag_script

CAST = {"Anna": "luna", "Mr. Smith": "kai", "Anna Maria": "zara", " Élise ": " nova "}


@pytest.mark.parametrize(
    ("script", "tagged"),
    [
        ("Anna: Hello.\nMr. Smith: Hi.", "[voice:luna] Hello.\n\n[voice:kai] Hi."),
        ("ANNA : Hello.\n\tmr. smith:Hi.", "[voice:luna] Hello.\n\n[voice:kai] Hi."),
        ("Anna Maria: Hello.", "[voice:zara] Hello."),
        ("**Anna:** Hello.\n__Anna__: Hi.", "[voice:luna] Hello.\n\n[voice:luna] Hi."),
        (
            "Once upon a time.\nAnna:\nHello.\nAnd more.",
            "Once upon a time.\n\n[voice:luna] \nHello.\nAnd more.",
        ),
        ("élise: Bonjour.", "[voice:nova] Bonjour."),
        ("e\u0301lise: Bonjour.", "[voice:nova] Bonjour."),
        ("She said to Anna: Hello.\nJoanna: Hi.\nNote: no.\nAnna said: no.", None),
        ("Mr+ Smith: Hi.", None),
        ("MR. SM\u0130TH: Hi.\nmr. sm\u0131th: Hi.", "[voice:kai] Hi.\n\n[voice:kai] Hi."),
    ],
)
def test_names_that_begin_lines_become_voice_tags(script: str, tagged: str | None) -> None:
    assert tag_script(script, CAST) == (script if tagged is None else tagged)


def test_a_text_without_a_cast_stays_as_it_is() -> None:
    assert tag_script("Anna: Hello.", {}) == "Anna: Hello."


@pytest.mark.parametrize("line", ["Anna", "**Anna", " \t", "\n", "Anna Maria", "Anna:"])
def test_the_time_is_linear(line: str) -> None:
    """A quadratic pattern would take minutes."""
    tag_script(line * 100_000, CAST)
