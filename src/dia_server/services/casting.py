"""Two voices for one dialogue: who says [S1] and who says [S2]."""

import hashlib

import numpy as np

from dia_server.engine.types import SAMPLE_RATE, VoicePrompt
from dia_server.text.speakers import TAG, Speaker

BETWEEN = np.zeros(SAMPLE_RATE // 4, np.float32)
"""Of silence between the two recordings."""


def cast(first: VoicePrompt | None, second: VoicePrompt | None) -> VoicePrompt | None:
    """One prompt in which `first` is heard as [S1] and `second` as [S2], as far as there are any."""
    if first is None or second is None:
        return _as("S1", first) or _as("S2", second)
    return VoicePrompt(
        np.concatenate([first.samples, BETWEEN, second.samples]),
        f"[S1] {_words(first)} [S2] {_words(second)}",
        hashlib.sha256(f"{first.digest} {second.digest}".encode()).hexdigest(),
    )


def _as(speaker: Speaker, prompt: VoicePrompt | None) -> VoicePrompt | None:
    return prompt and VoicePrompt(prompt.samples, f"[{speaker}] {_words(prompt)}", prompt.digest)


def _words(prompt: VoicePrompt) -> str:
    return " ".join(TAG.sub(" ", prompt.transcript).split())
