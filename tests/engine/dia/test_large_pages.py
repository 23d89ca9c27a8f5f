"""Memory that is moved to pages of 2 MiB."""

import ctypes
import mmap
import platform
from pathlib import Path

import pytest

from dia_server.engine.dia import large_pages
from dia_server.engine.dia.large_pages import MAPPINGS, MODE, PAGE, candidates, collapse
from dia_server.units import MIB

SIZE = 64 * MIB


def smaps(mapping: str, used: int, large: int = 0) -> str:
    return f"{mapping}\nSize:   16384 kB\nRss:    {used} kB\nAnonHugePages:    {large} kB\nVmFlags: rd wr\n"


WHOLE = "7f0000000000-7f0001000000"
"""Addresses of 16 MiB."""


def test_large_mappings_in_use_are_moved() -> None:
    assert list(candidates(smaps(f"{WHOLE} rw-p 00000000 00:00 0 ", 16384))) == [
        (0x7F00_0000_0000, 0x7F00_0100_0000)
    ]
    # only whole pages of 2 MiB
    odd = smaps("7f0000001000-7f0001001000 rw-p 00000000 00:00 0    [heap]", 16000)
    assert list(candidates(odd * 2)) == 2 * [(0x7F00_0020_0000, 0x7F00_0100_0000)]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(smaps(f"{WHOLE} rw-p 00000000 00:00 0 ", 8000), id="half of it is unused"),
        pytest.param(smaps(f"{WHOLE} rw-p 00000000 00:00 0 ", 16384, 16384), id="it is there already"),
        pytest.param(smaps(f"{WHOLE} r--p 00000000 00:00 0 ", 16384), id="read-only"),
        pytest.param(smaps(f"{WHOLE} rw-s 00000000 00:00 0 ", 16384), id="shared"),
        pytest.param(smaps(f"{WHOLE} rw-p 00000000 08:01 77    /a/file", 16384), id="a file"),
        pytest.param(smaps("7f0000000000-7f0000400000 rw-p 00000000 00:00 0 ", 4096), id="small"),
        pytest.param(smaps(f"{WHOLE} rw-p 00000000 00:00 0    [stack]", 16384), id="a stack"),
    ],
)
def test_other_mappings_stay(entry: str) -> None:
    assert list(candidates(entry)) == []


def pages_at(address: int) -> int:
    """Return the KiB of large pages in the mapping of `address`."""
    inside = False
    for line in MAPPINGS.read_text().splitlines():
        head = line.partition(" ")[0]
        if "-" in head:
            start, stop = (int(part, 16) for part in head.split("-"))
            inside = start <= address < stop
        elif inside and head == "AnonHugePages:":
            return int(line.split()[1])
    raise AssertionError(f"{address:x} is not mapped")


def kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split(".")[:2])


@pytest.mark.skipif(
    platform.system() != "Linux" or kernel() < (6, 1) or not MODE.exists() or "[never]" in MODE.read_text(),
    reason="needs Linux 6.1 with pages of 2 MiB",
)
def test_memory_keeps_its_contents_on_larger_pages(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless the kernel refuses, which it does where no 2 MiB are free in one piece."""
    caplog.set_level("INFO", "dia_server")  # servers of other tests set it too
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        pattern = bytes(range(256)) * (SIZE // 256)
        memory[:] = pattern
        place = ctypes.c_char.from_buffer(memory)
        first = -(-ctypes.addressof(place) // PAGE) * PAGE
        del place  # while it exists the memory cannot be closed
        # the kernel may have joined the mapping with others, so it is not looked for
        monkeypatch.setattr(large_pages, "candidates", lambda smaps: [(first, first + SIZE - PAGE)])

        collapse()

        assert pages_at(first) >= (SIZE - PAGE) >> 10 or "stays on small pages" in caplog.text
        assert memory[:] == pattern


def test_a_system_without_such_pages_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(large_pages, "MAPPINGS", tmp_path / "smaps")
    collapse()
    (tmp_path / "smaps").write_text(smaps(f"{WHOLE} rw-p 00000000 00:00 0 ", 16384))
    monkeypatch.setattr(large_pages, "MODE", tmp_path / "enabled")
    collapse()
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    collapse()


def test_a_refusal_is_logged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "smaps").write_text(smaps("1000000-2000000 rw-p 00000000 00:00 0 ", 16384))
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    monkeypatch.setattr(large_pages, "MAPPINGS", tmp_path / "smaps")
    monkeypatch.setattr(large_pages, "MODE", tmp_path / "enabled")
    monkeypatch.setattr(large_pages, "MADV_COLLAPSE", 9999)
    caplog.set_level("INFO", "dia_server")  # servers of other tests set it too

    collapse()

    assert "memory stays on small pages" in caplog.text
