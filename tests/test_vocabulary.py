import pytest

from dia_server.vocabulary import SOUND, SOUNDS


@pytest.mark.parametrize("name", [*SOUNDS, "sings", "chuckles", "laugh", "sigh", "clearing throat", "HUM"])
def test_a_sound_is_recognised_in_each_form(name: str) -> None:
    assert SOUND.fullmatch(f"({name})")


@pytest.mark.parametrize("text", ["(quietly)", "laughs", "(laughs loudly)", "(throat)", "()"])
def test_other_text_is_no_sound(text: str) -> None:
    assert not SOUND.search(text)
