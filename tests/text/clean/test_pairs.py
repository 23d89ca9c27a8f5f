"""What is said of texts as language models and chat users write them."""

import pytest

from dia_server.text.clean import clean
from dia_server.text.clean.case import fold_mixed_case
from tests.text.clean.pairs import FOLDED, PAIRS

EACH = [
    pytest.param(text, said, id=f"{name}: {text[:40]!r}")
    for name, pairs in PAIRS.items()
    for text, said in pairs
]


@pytest.mark.parametrize(("text", "said"), EACH)
def test_text_is_said_as_people_read_it(text: str, said: str) -> None:
    assert clean(text) == said
    assert clean(said) == said


@pytest.mark.parametrize(("text", "said"), FOLDED)
def test_mixed_case_is_folded_on_request(text: str, said: str) -> None:
    assert fold_mixed_case(clean(text)) == said


def test_a_code_block_can_be_announced() -> None:
    assert clean("So:\n```python\nx = 1\n```\nFine.", code="Code block.") == "So: Code block. Fine."


def test_an_unclosed_code_block_extends_to_the_end() -> None:
    assert clean("So:\n```python\nx = 1\n\ny = 2") == "So:"
