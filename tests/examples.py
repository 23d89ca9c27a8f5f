"""Code blocks of the documentation's pages, and programs to run them."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.live import forks


@dataclass
class Block:
    """A fenced code block; `line` is the line of its fence, from 1."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced code blocks of a Markdown page, in order."""
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, fence.start()) + 1, fence[1], fence[2])
        for fence in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def run(language: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, for 60 s at most."""
    if language == "python":
        program = folder / "example.py"
        program.write_text(text)
        return forks.run([str(program)], folder, os.environ)
    # Node.js 20 needs the flag for WebSocket; 22 does not
    node = ["node", "--experimental-websocket", "--input-type=module", "--eval", text]
    commands = {
        "bash": ["bash", "-e", "-c", text],
        "js": node,
        "javascript": node,
    }
    return subprocess.run(
        commands[language],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=60,
    )
