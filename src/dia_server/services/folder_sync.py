"""Names of files that survive a power failure."""

import errno
import os
from contextlib import suppress
from pathlib import Path

CANNOT = {errno.EINVAL, errno.EBADF}
"""What file systems answer that do not sync folders, some of a network among them."""


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable; raises OSError.

    Windows does that by itself and cannot open folders; nor can who may write to one and not read it.
    """
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in CANNOT:
                raise
        finally:
            os.close(descriptor)
