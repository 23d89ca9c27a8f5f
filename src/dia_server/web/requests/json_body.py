"""Strict decoding of JSON bodies and messages.

Hand-written because Litestar converts types: it accepts the string "1" as the number 1.
"""

import re
from typing import Any

import msgspec
from msgspec import inspect

from dia_server.errors import BadRequest, Invalid
from dia_server.web.requests import nul

BOUND = re.compile(r"[<>]=? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$")
"""Matches the bound at the end of a msgspec message such as "Expected `int` <= 10"."""
ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
"""Matches an escape sequence in JSON, two for a pair of surrogates; `lone` is one without its pair."""
MAX_ESCAPES = 400_000
"""Maximum escape sequences of a body whose lone surrogates are dropped, which takes 0.6 µs for each. The
longest text has 160,000, and base64 of the largest reference 220,000, if its slashes are escaped."""
ESCAPED_NUL = "\\u0000"
"""Escape sequence of NUL in JSON, the only valid form of NUL there."""


def decode(body: bytes | str, expected: Any) -> Any:
    """Decode `body` as the type `expected`.

    Raises BadRequest if it is not JSON. Raises Invalid for a wrong type, a NUL character or a value out of
    bounds. The error has the field as `param`, and for a value out of bounds the bound as `limit`.
    """
    try:
        decoded = _decode(body, expected)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        path = path.rpartition(" in ")[2]  # of a wrong key it is "`key` in `$.voices`"
        field = path.strip("`").removeprefix("$").removeprefix(".")
        limit = bound_in(message)
        message += name_choices(expected, field)
        raise Invalid(f"{field}: {message}" if field else message, param=field or None, limit=limit) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"Invalid JSON: {error}") from None
    except RecursionError:
        raise BadRequest("Invalid JSON: nested too deeply") from None
    if (ESCAPED_NUL in body) if isinstance(body, str) else (ESCAPED_NUL.encode() in body):
        nul.check_all(decoded)
    return decoded


def bound_in(message: str) -> float | None:
    """Return the bound at the end of a msgspec message, such as 10 in "Expected `int` <= 10", or None."""
    if not (match := BOUND.search(message)):
        return None
    return int(match[1]) if match[1].lstrip("-").isdigit() else float(match[1])


def _decode(body: bytes | str, expected: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=expected)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # drop lone surrogates, which JavaScript sends for an emoji cut in two: valid JSON, but invalid UTF-8
        raw = body.encode(errors="ignore") if isinstance(body, str) else body
        if raw.count(b"\\") > MAX_ESCAPES:
            raise
        whole = ESCAPE.sub(lambda match: b"" if match["lone"] else match[0], raw)
        return msgspec.json.decode(whole, type=expected)


def name_choices(expected: Any, field: str = "") -> str:
    """Return "; it must be one of ..." with the choices of `field` in `expected`, "" if it has no choices."""
    choices = _choices(inspect.type_info(expected), field.split(".") if field else [])
    return f"; it must be one of {', '.join(sorted(map(str, choices)))}" if choices else ""


def _choices(kind: inspect.Type, path: list[str]) -> tuple[object, ...]:
    """Return the choices of the field at `path` (field names from outer to inner); empty if it has none."""
    match kind:
        case inspect.UnionType():
            return tuple(choice for one in kind.types for choice in _choices(one, path))
        case inspect.Metadata():
            return _choices(kind.type, path)
        case inspect.StructType() if path == [kind.tag_field]:
            return (kind.tag,)
        case inspect.StructType() if path:
            fields = (field for field in kind.fields if field.encode_name == path[0])
            return next((_choices(field.type, path[1:]) for field in fields), ())
        case inspect.LiteralType() if not path:
            return kind.values
    return ()
