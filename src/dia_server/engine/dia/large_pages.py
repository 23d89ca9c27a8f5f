"""Moves memory in use to pages of 2 MiB, on Linux 6.1 and newer: a CPU then looks up fewer addresses.

PyTorch asks for such pages when it allocates (THP_MEM_ALLOC_ENABLE=1), but FBGEMM's weights in fp16 come from
the C library, which does not.
"""

import ctypes
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dia_server.units import MIB

log = logging.getLogger(__name__)

PAGE = 2 * MIB
LEAST = 8 * MIB
"""Minimum size of a mapping that is moved."""
USED = 0.9
"""Minimum share of a mapping that is in use: pages of 2 MiB would fill the rest with zeros."""
MADV_COLLAPSE = 25
MAPPINGS = Path("/proc/self/smaps")
MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")

_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)$")


def collapse() -> None:
    """Move the large private mappings of this process; on other systems, or if turned off there, do nothing.

    Takes about 1.4 s per GiB.
    """
    if not (MAPPINGS.exists() and MODE.exists()) or "[never]" in MODE.read_text():
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    left, cause = 0, ""
    for start, stop in candidates(MAPPINGS.read_text()):
        if madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), MADV_COLLAPSE) != 0:
            left, cause = left + stop - start, os.strerror(ctypes.get_errno())
    if left:
        log.info("memory stays on small pages", extra={"mib": left // MIB, "cause": cause})


def candidates(smaps: str) -> Iterator[tuple[int, int]]:
    """Yield the addresses of the whole pages of 2 MiB in each mapping of `smaps` that is worth moving."""
    for entry in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE):
        mapping = _MAPPING.match(entry.partition("\n")[0])
        if mapping is None:
            continue
        start, stop = int(mapping[1], 16), int(mapping[2], 16)
        used, large = (_kib(entry, name) for name in ("Rss", "AnonHugePages"))
        anonymous = mapping[4] == "0" and (mapping[5] in ("", "[heap]") or mapping[5].startswith("[anon:"))
        in_use = stop - start >= LEAST and used >= USED * (stop - start)
        if mapping[3] == "rw-p" and anonymous and in_use and large < USED * used:
            yield -(-start // PAGE) * PAGE, stop // PAGE * PAGE


def _kib(entry: str, name: str) -> int:
    found = re.search(rf"^{name}: +(\d+) kB$", entry, re.MULTILINE)
    return 0 if found is None else int(found[1]) << 10
