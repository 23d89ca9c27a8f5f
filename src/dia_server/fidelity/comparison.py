"""Compares Dia in a cheaper dtype with Dia in fp32; memory holds one of them at a time."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dia_server.engine.dia.background_stream import use_device
from dia_server.engine.dia.checkpoint import Checkpoint
from dia_server.engine.dia.codec import load_codec
from dia_server.engine.dia.hub import locate
from dia_server.engine.dia.loader import count_slots, pick_device, pick_dtype, read_weights
from dia_server.engine.dia.memory import device_memory, release_cached, translate_oom
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.probe import kernel_fault
from dia_server.engine.dia.step_ops import fastest_ops
from dia_server.engine.dia.text import text_bytes
from dia_server.engine.dia.weights import Weights
from dia_server.engine.types import Utterance
from dia_server.errors import Invalid, TextTooLong
from dia_server.fidelity import report as reports
from dia_server.fidelity.decoding import Decoded, Decoding
from dia_server.fidelity.divergence import Comparison, Deviation, Reference, Sampler
from dia_server.fidelity.listening import check_whisper, wrong_words_per_hundred
from dia_server.fidelity.report import Channel, Ends, Report, Words
from dia_server.settings import Settings
from dia_server.text.budget import columns, speaking_time
from dia_server.text.plan import MAX_RATIO, SLACK_S
from dia_server.text.speakers import TAG

WIDE = "float32"
"""The dtype with which the others are compared."""
BATCH = 8
"""Maximum utterances that are decoded at the same time."""

Progress = Callable[[str, int, int], None]
"""Function (stage, done, total) that shows the progress."""


@dataclass(frozen=True, slots=True, eq=False)
class _Subject:
    """The checkpoint that is compared, and what it says."""

    checkpoint: Checkpoint
    config: ModelConfig
    device: torch.device
    max_batch: int
    """Slots of the server, upon which the dtype "auto" depends."""
    utterances: Sequence[Utterance]
    progress: Progress

    def load(self, dtype: str, slots: int) -> tuple[Decoding, Weights, int]:
        """Load the weights in `dtype`; return them with a decoding and its number of slots, at most `slots`.

        Weights loaded before must not be referred to any more. Raises ModelNotLoaded.
        """
        gc.collect()
        release_cached()
        kind = pick_dtype(dtype, self.device, self.max_batch)
        kernels = self.device.type == "cuda" and kernel_fault(self.device, kind) is None
        weights = read_weights(
            self.checkpoint,
            self.config,
            self.device,
            dtype,
            self.max_batch,
            lambda share: self.progress(f"loading {dtype}", int(100 * share), 100),
            kernels=kernels,
        )
        memory = device_memory(self.device)
        slots = count_slots(self.config, weights.dtype, slots, memory)
        return Decoding(weights, slots, fastest_ops(weights, kernels=kernels)), weights, slots

    def report(self, stage: str) -> Callable[[int], None]:
        return lambda done: self.progress(stage, done, len(self.utterances))


def compare(
    conf: Settings, texts: Sequence[str], *, seed: int, whisper: str | None, progress: Progress
) -> Report:
    """Compare the dtype that `conf` chooses with fp32 on tagged `texts`; text i is spoken with `seed` + i.

    `whisper` is the model that counts wrong words, None for none. Raises ServerError.
    """
    if whisper is not None:
        check_whisper(whisper)
    device = pick_device(conf.device)
    if device.type == "cuda":
        use_device(device)
    dtype: str = conf.dtype
    if dtype == "auto":
        dtype = str(pick_dtype(dtype, device, conf.max_batch)).removeprefix("torch.")
    folder = locate(conf.model, "DIA_MODEL", lambda share: progress("fetching Dia", int(100 * share), 100))
    codec = None if whisper is None else locate(conf.codec, "DIA_CODEC", lambda share: None)
    checkpoint = Checkpoint(folder)
    config = checkpoint.config.with_columns(conf.max_columns)
    subject = _Subject(
        checkpoint, config, device, conf.max_batch, list(_utterances(texts, config, seed)), progress
    )
    sampler = Sampler(config, subject.utterances[0])
    reference = Reference(sampler, len(texts))
    comparison = Comparison(sampler, reference)
    with translate_oom(f"Too little memory on {device}", lambda: None):
        wide, slots, untrained = _speak_wide(subject, reference)
        narrow = _speak_narrow(subject, dtype, slots, wide, comparison)
        words = None if whisper is None or codec is None else _words(subject, whisper, codec, [wide, narrow])
    channels = [_channel(i, found) for i, found in enumerate(comparison.by_channel(wide, config.delay))]
    return Report(
        model=conf.model,
        device=str(device),
        reference=WIDE,
        dtype=dtype,
        texts=len(texts),
        temperature=sampler.temperature,
        cfg_scale=subject.utterances[0].cfg_scale,
        channels=channels,
        ends=_ends(wide, narrow),
        words=words,
        verdict=reports.judge(channels, words, untrained=untrained),
    )


def is_untrained(weights: Weights) -> bool:
    """Return whether the norms' weights are 1, as in a new model.

    Training changes them. Random weights that somebody made otherwise are not found out.
    """
    norms = [weights.norm, *(layer.block.attention_norm for layer in weights.layers)]
    return all(bool((norm == 1).all()) for norm in norms)


def _utterances(texts: Sequence[str], config: ModelConfig, seed: int) -> Iterator[Utterance]:
    """Yield an utterance for each text, with the server's limit of steps; raises Invalid or TextTooLong."""
    for number, text in enumerate(texts):
        most = columns(MAX_RATIO * speaking_time(TAG.sub("", text)) + SLACK_S)
        utterance = Utterance(text, "", seed + number, max_tokens=min(most, config.decoder.positions))
        try:
            text_bytes(utterance, config.encoder.positions)
        except (Invalid, TextTooLong) as error:
            raise type(error)(f"Text {number + 1}: {error}", param="texts", limit=error.limit) from None
        yield utterance


def _speak_wide(subject: _Subject, reference: Reference) -> tuple[list[Decoded], int, bool]:
    """Speak freely in fp32; return what was spoken, the number of slots, and whether it is untrained."""
    decoding, weights, slots = subject.load(WIDE, BATCH)
    spoken = decoding.run(subject.utterances, subject.report(f"speaking in {WIDE}"), watch=reference)
    return spoken, slots, is_untrained(weights)


def _speak_narrow(
    subject: _Subject, dtype: str, slots: int, wide: Sequence[Decoded], comparison: Comparison
) -> list[Decoded]:
    """Compare over fp32's tokens, then speak freely in `dtype`; return what was spoken."""
    decoding, _, _ = subject.load(dtype, slots)
    stage = f"comparing {dtype}"
    decoding.run(subject.utterances, subject.report(stage), watch=comparison, forced=wide)
    return decoding.run(subject.utterances, subject.report(f"speaking in {dtype}"))


def _words(subject: _Subject, whisper: str, folder: Path, runs: Sequence[Sequence[Decoded]]) -> Words:
    device = subject.device
    fault = kernel_fault(device, torch.float32) if device.type == "cuda" else None
    wide, narrow = wrong_words_per_hundred(
        whisper,
        [utterance.text for utterance in subject.utterances],
        runs,
        load_codec(folder, device, kernels=fault is None),
        subject.config.delay,
        lambda done: subject.progress("listening", done, len(runs) * len(subject.utterances)),
    )
    return Words(whisper, wide, narrow)


def _channel(number: int, found: Deviation) -> Channel:
    if not len(found.kl):
        raise Invalid("Nothing was spoken: the model ended each text at once", param="texts")
    return Channel(
        channel=number,
        columns=len(found.kl),
        mean_kl=float(found.kl.mean()),
        p99_kl=float(np.quantile(found.kl.numpy(), 0.99)),
        argmax_agreement=float(found.agrees.double().mean()),
        left_out=float(found.left_out.mean()),
    )


def _ends(wide: Sequence[Decoded], narrow: Sequence[Decoded]) -> Ends:
    shifts = [abs(one.end - other.end) for one, other in zip(wide, narrow, strict=True)]
    return Ends(
        median_frames=float(np.median(shifts)),
        p90_frames=float(np.quantile(shifts, 0.9)),
        reference_reached_limit=sum(one.reached_limit for one in wide),
        reached_limit=sum(one.reached_limit for one in narrow),
    )
