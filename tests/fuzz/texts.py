"""Generates texts of mixed scripts, marks and controls from a seed; some crash espeak-ng."""

import random
from collections.abc import Callable, Iterator

BLOCKS = [
    *((0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF)),
    *((0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF)),
    *((0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x20A0, 0x20CF)),
    *((0x2190, 0x22FF), (0x2500, 0x257F), (0x3040, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xACFF)),
    *((0xFB00, 0xFB4F), (0xFE00, 0xFE0F), (0xFF00, 0xFFEF), (0x1D400, 0x1D4FF), (0x1F300, 0x1F64F)),
]
"""First and last code point of Unicode blocks."""
MARKS = [
    "---",
    "...",
    "??",
    "!",
    ",",
    ";",
    "'",
    '"',
    "*",
    "_",
    "(",
    ")",
    "[[",
    "]]",
    "<",
    ">",
    "&",
    "\n",
    "\t",
]
WORDS = ["hello", "नमस्ते", "привет", "你好", "שלום", "مرحبا", "สวัสดี", "1,299.50", "x" * 20, "(laughs)", "[S2]"]


def texts(seed: int) -> Iterator[str]:
    """Yield an endless sequence of texts, the same for the same seed; each has something to pronounce."""
    random_ = random.Random(seed)
    makers: list[Callable[[], str]] = [
        lambda: random_.choice(MARKS) * random_.randint(1, 3),
        lambda: random_.choice(WORDS),
        lambda: "".join(chr(random_.randint(*random_.choice(BLOCKS))) for _ in range(random_.randint(1, 6))),
        lambda: " ",
    ]
    while True:
        yield "".join(random_.choice(makers)() for _ in range(random_.randint(1, 8)))[:100]
