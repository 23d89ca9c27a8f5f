import pytest

from dia_server.errors import Invalid, InvalidVoiceId, PayloadTooLarge
from dia_server.services.voices.pronunciation_file import MAX_SIZE, read, with_voices, write
from dia_server.services.voices.pronunciations import MAX_ENTRIES, Pronunciation, checked


def resolve(name: str) -> str:
    if name.lower() != "aria":
        raise InvalidVoiceId(f"Voice {name!r} does not exist", param="voice_id")
    return "aria"


def imported(content: bytes) -> list[Pronunciation]:
    return with_voices(read(content), resolve)


def test_what_is_written_can_be_read() -> None:
    entries = [checked("SQL", "sequel"), checked("o'brien", "oh bryan", "aria"), checked("Ærø", "air oh")]

    assert imported(write(entries).encode()) == entries
    assert write([]) == "word,respelling,voice_id\r\n"


@pytest.mark.parametrize(
    "content",
    [
        b"word,respelling\nsql,sequel",
        b"word,respelling\r\n\r\nsql,sequel\r\n",
        b"\xef\xbb\xbfword,respelling,voice_id\r\nsql, sequel ,\r\n",
        b'word,respelling,voice_id\n"sql","sequel",""\n',
    ],
)
def test_files_of_other_programs_are_read(content: bytes) -> None:
    assert imported(content) == [checked("sql", "sequel")]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_the_line_that_is_not_utf_8_is_named(bom: bytes) -> None:
    with pytest.raises(Invalid, match="line 3: not valid UTF-8"):
        read(bom + b"word,respelling\nsql,sequel\n\xff,a\n")


def test_a_voice_may_be_named_in_any_case() -> None:
    assert imported(b"word,respelling,voice_id\nsql,sequel,Aria") == [checked("sql", "sequel", "aria")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: the columns must be word,respelling,voice_id"),
        (b"sql,sequel\n", "line 1: the columns must be"),
        (b"word;respelling\nsql;sequel\n", "line 1: the columns must be"),
        (b"word,respelling\nsql,sequel\ngif\n", "line 3: 1 columns, but the first line has 2"),
        (b"word,respelling\nsql,sequel,aria\n", "line 2: 3 columns"),
        (b"word,respelling\nsql,a_b\n", "line 2: respelling must be one or more words"),
        (b"word,respelling\nsql,a\0b\n", "line 2: respelling must be one or more words"),
        (b"word,respelling\nsql,a\ngif,b\nsql,c\n", "line 4: the word 'sql' is there twice"),
        (b'word,respelling\nsql,"a\n', "not valid CSV"),
        (b"word,respelling\nsql,a\n\xff,b\n", "line 3: not valid UTF-8"),
    ],
)
def test_an_error_names_the_line(content: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=f"^file, .*{message}") as caught:
        imported(content)

    assert caught.value.param == "file"


def test_an_error_names_the_limit() -> None:
    head = b"word,respelling\n"
    with pytest.raises(Invalid, match="line 2: word") as caught:
        imported(head + b"a" * 65 + b",b\n")
    assert caught.value.limit == 64

    rows = b"".join(b"a%d,b\n" % number for number in range(MAX_ENTRIES))
    assert len(imported(head + rows)) == MAX_ENTRIES
    with pytest.raises(Invalid, match="line 5002: the limit is 5,000 pronunciations") as caught:
        imported(head + rows + b"b,b\n")
    assert caught.value.limit == MAX_ENTRIES

    with pytest.raises(PayloadTooLarge, match="the limit is 1,048,576 bytes"):
        imported(head + b"\n" * MAX_SIZE)


def test_an_unknown_voice_is_named_with_its_line() -> None:
    with pytest.raises(InvalidVoiceId, match=r"^file, line 3: Voice 'nobody' does not exist"):
        imported(b"word,respelling,voice_id\na,b,\nc,d,nobody\n")
