"""Decompression bombs: small files that take gigabytes or minutes to decode."""

import struct
import zlib

import numpy as np

from dia_server.audio.encode import encode
from tests.recordings import RATE


def png(side: int) -> bytes:
    """Return a black square: its pixels take `side`² * 4 bytes, its file a thousandth of that."""
    squeeze = zlib.compressobj(9)
    row = bytes(1 + 4 * side)
    data = b"".join([squeeze.compress(row) for _ in range(side)]) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def mp3_with_cover(side: int) -> bytes:
    """Return a second of MP3 with a PNG of `side`² pixels as its ID3 cover."""
    frame = b"\x00image/png\x00\x03\x00" + png(side)
    body = b"APIC" + struct.pack(">I", len(frame)) + b"\x00\x00" + frame
    size = len(body)
    syncsafe = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    return b"ID3\x03\x00\x00" + syncsafe + body + encode(noise, RATE, "mp3")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
