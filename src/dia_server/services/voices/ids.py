"""Ids that clients choose and that may become file names."""

import re

from dia_server.errors import Invalid

ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
DEVICE_NAME = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Names that mean a device and not a file on Windows."""


def check(value: str, field: str) -> None:
    """Raise Invalid where `value` cannot be an id; `field` is what the request calls it."""
    if not ID.fullmatch(value) or DEVICE_NAME.fullmatch(value):
        raise Invalid(
            f"{field} must be 1 to 64 letters, digits, '_', '-' or '.', not start with a dot, "
            "and not be the name of a device",
            param=field,
        )
