"""Drives a model as the engine does, in the test's own thread."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import LongTensor, Tensor
from transformers import DiaForConditionalGeneration

from dia_server.engine.dia.assemble import assemble
from dia_server.engine.dia.model import AudioCodec
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.weights import Weights
from dia_server.engine.dia.windows import Window
from dia_server.engine.types import Chunk, Model, Recording, Samples, Utterance, VoicePrompt


class CodesAsAudio(AudioCodec):
    """A codec whose audio is the codes themselves, so that a test sees the tokens."""

    def encode(self, samples: Samples) -> LongTensor:
        return torch.from_numpy(samples).view(-1, 9).long()  # type: ignore[return-value]

    def decode(self, windows: Sequence[Window]) -> list[Samples]:
        return [w.frames[w.left : w.left + w.n].flatten().float().numpy() for w in windows]

    def warm_up(self, most: int) -> None:
        pass


def weights_of(
    dia: DiaForConditionalGeneration, *, dtype: torch.dtype = torch.float32, int8: bool = False
) -> Weights:
    source = dia.state_dict().__getitem__
    return assemble(ModelConfig.of(dia.config), source, device=torch.device("cpu"), dtype=dtype, int8=int8)


def prompt_of(frames: Tensor, transcript: str = "") -> VoicePrompt:
    """Return a voice prompt that `CodesAsAudio` encodes to `frames`."""
    samples = frames.flatten().float().numpy()
    return VoicePrompt((Recording(samples, str(hash(samples.tobytes()))),), transcript)


def drive(
    model: Model, utterances: Sequence[Utterance], arrivals: Sequence[int] | None = None
) -> list[list[Chunk]]:
    """Run all utterances and return their chunks; the n-th enters at poll `arrivals[n]` if a slot is free.

    Raises the errors that the model raises or returns.
    """
    waiting = sorted(range(len(utterances)), key=lambda n: arrivals[n] if arrivals else 0)
    chunks: list[list[Chunk]] = [[] for _ in utterances]
    busy: dict[int, int] = {}
    poll = 0
    while waiting or busy:
        for slot in range(model.slots):
            if slot not in busy and waiting and (arrivals is None or arrivals[waiting[0]] <= poll):
                busy[slot] = waiting.pop(0)
                model.admit(slot, utterances[busy[slot]])
        for slot, outcome in model.step().items():
            if isinstance(outcome, Exception):
                raise outcome
            chunks[busy[slot]].append(outcome)
            if outcome.done:
                del busy[slot]
                model.release(slot)
        poll += 1
    return chunks


def audio_of(chunks: Sequence[Chunk]) -> Samples:
    return np.concatenate([chunk.samples for chunk in chunks])


def frames_of(chunks: Sequence[Chunk]) -> Tensor:
    """Return the frames [n, 9] that `CodesAsAudio` received."""
    return torch.from_numpy(audio_of(chunks)).view(-1, 9).long()
