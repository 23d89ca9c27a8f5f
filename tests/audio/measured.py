from resource import RUSAGE_SELF, getrusage
from typing import BinaryIO

from dia_server.audio.prompt import PromptMaker


class MeasuredPromptMaker(PromptMaker):
    def peak_after(self, file: BinaryIO) -> int:
        """Make a prompt; returns the most memory that the process has had, in bytes."""
        self.make(file)
        return getrusage(RUSAGE_SELF).ru_maxrss * 1024
