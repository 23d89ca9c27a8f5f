"""Ids that clients choose and that may become file names."""

import re

from dia_server.errors import Invalid

ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
DEVICE_NAME = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Device names reserved by Windows, with any extension."""


def check(value: str, field: str) -> None:
    """Raise Invalid, with `param` set to the request field `field`, if `value` is not a valid id."""
    if not ID.fullmatch(value) or DEVICE_NAME.fullmatch(value):
        raise Invalid(
            f"{field} must be 1 to 64 letters, digits, '_', '-' or '.', not start with a dot, "
            "and not be a Windows device name such as 'con' or 'com1'",
            param=field,
        )
