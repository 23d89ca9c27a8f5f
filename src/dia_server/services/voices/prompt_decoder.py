"""Decodes uploaded recordings into audio prompts, in child processes."""

from typing import BinaryIO

from dia_server.audio.prompt import PromptMaker
from dia_server.errors import UnusableAudio
from dia_server.native import NativeFailure, NativePool, NativeWorker
from dia_server.units import MIB

WORKERS = 2
"""Maximum recordings decoded at the same time."""
DEADLINE_S = 30.0
"""Maximum seconds to decode one file; a minute of audio takes well under a second."""
MEMORY = 512 * MIB
"""Maximum bytes of memory to decode one file; a minute of 192 kHz stereo takes 100 MiB."""


class PromptDecoder:
    """Starts up to WORKERS child processes on demand: a start takes 0.2 s, an idle process 50 MB."""

    def __init__(self) -> None:
        self._pool = NativePool(
            [
                NativeWorker("decoder", PromptMaker, deadline_s=DEADLINE_S, memory=MEMORY)
                for _ in range(WORKERS)
            ]
        )

    def close(self) -> None:
        """End the child processes; calls in progress raise Closed."""
        self._pool.close()

    def make(self, file: BinaryIO) -> bytes:
        """Convert an audio file of any format to the WAV file of a prompt; blocks.

        Raises UnusableAudio, or NativeUnavailable if no child process can be started.
        """
        try:
            return self._pool.submit(PromptMaker.make, file).result()
        except NativeFailure as failure:
            raise UnusableAudio(f"the file cannot be decoded: {failure}") from None
