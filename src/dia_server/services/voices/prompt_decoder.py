"""Voice prompts from foreign files, decoded in processes of their own."""

from typing import BinaryIO

from dia_server.audio.prompt import PromptMaker
from dia_server.errors import UnusableAudio
from dia_server.native import MIB, NativeFailure, NativePool, NativeWorker

WORKERS = 2
"""Recordings that are decoded at the same time."""
DEADLINE_S = 30.0
"""Seconds for one file; a minute of audio takes well under a second."""
MEMORY = 512 * MIB
"""Bytes for one file; a minute of 192 kHz stereo takes 100 MiB."""


class PromptDecoder:
    """`make` starts a process when it first needs it: an upload can wait 0.2 s, and a process takes 50 MB."""

    def __init__(self) -> None:
        self._pool = NativePool(
            [
                NativeWorker("decoder", PromptMaker, deadline_s=DEADLINE_S, memory=MEMORY)
                for _ in range(WORKERS)
            ]
        )

    def close(self) -> None:
        """End what is being decoded, which raises Closed."""
        self._pool.close()

    def make(self, file: BinaryIO) -> bytes:
        """Bring any audio file into the form of a prompt; blocks, and raises UnusableAudio."""
        try:
            return self._pool.submit(PromptMaker.make, file).result()
        except NativeFailure as failure:
            raise UnusableAudio(f"the file cannot be decoded: {failure}") from None
