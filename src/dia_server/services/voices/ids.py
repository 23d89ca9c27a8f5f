"""Checks ids that clients choose and that become file names."""

import re

from dia_server.errors import Invalid

MAX_LENGTH = 64
"""Maximum characters of an id."""
ID = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9_.-]{{0,{MAX_LENGTH - 1}}}")
DEVICE_NAME = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Device names reserved by Windows, with any extension."""


def check(value: str, field: str) -> None:
    """Raise Invalid for the request field `field` if `value` is not a valid id.

    The error's `limit` is MAX_LENGTH if the id is too long, else None.
    """
    if not ID.fullmatch(value) or DEVICE_NAME.fullmatch(value):
        raise Invalid(
            f"{field} must be 1 to {MAX_LENGTH} letters, digits, '_', '-' or '.', not start with a dot, "
            "and not be a Windows device name such as 'con' or 'com1'",
            param=field,
            limit=MAX_LENGTH if len(value) > MAX_LENGTH else None,
        )
