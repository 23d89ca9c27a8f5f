from resource import RUSAGE_SELF, getrusage
from typing import BinaryIO

from dia_server.audio.prompt import PromptMaker


class MeasuredPromptMaker(PromptMaker):
    def peak_after(self, file: BinaryIO) -> int:
        """Make a prompt; return the process's peak memory in bytes."""
        self.make(file)
        return getrusage(RUSAGE_SELF).ru_maxrss * 1024
