"""The DAC codec: 44.1 kHz audio to frames of 9 codes and back, whole or in windows while it is being made.

A frame is 512 samples. A decoded sample depends on at most 9.25 frames on each side of its own, so a window
with 10 frames of context around its middle gives the same samples as the whole; context is left out only
where the sequence itself begins or ends. The weights stay in fp32 (bf16 leaves 12 dB); on GPUs the
convolutions may use TF32, torch's default for them.

`Codec` knows nothing of slots, delay patterns or special tokens: its codes are 0 to 1023.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import LongTensor, Tensor, nn
from transformers import DacConfig, DacModel
from transformers.models.dac.modeling_dac import Snake1d
from transformers.utils import logging as library_log

from dia_server.engine.dia.snake import Snake
from dia_server.engine.types import Samples
from dia_server.errors import ModelNotLoaded
from dia_server.units import HOP, SAMPLE_RATE

CODEBOOKS = 9
CONTEXT = 10
"""Frames that a window needs on either side."""
MAX_WINDOWS = 16
"""Decoded at a time, of 63 frames each: 0.6 GB of intermediate results."""
FIRST_CHUNK, LAST_CHUNK = 4, 43
"""Frames of the first chunk, for an early start, and of those in full swing, half a second each."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Frames to decode, of which only the `n` after the first `left` are wanted."""

    frames: LongTensor
    """[left + n + right, 9], on any device."""
    left: int
    n: int


@dataclass(frozen=True, slots=True)
class Span:
    """The next chunk of a sequence: frames [start, stop) are its window, `n` from `start + left` its own."""

    start: int
    stop: int
    left: int
    n: int


def plan_chunk(emitted: int, complete: int, ended: bool) -> Span | None:
    """What to decode after `emitted` frames when `complete` are known; None where that is too few as yet.

    Chunks are of 4, 4, 8, 16, 32 and then 43 frames: each starts playing while the next, no longer than
    everything before it, is being made. Until the sequence has `ended` a chunk waits for its right context.
    """
    n = min(max(emitted, FIRST_CHUNK), LAST_CHUNK)
    if ended:
        n = min(n, complete - emitted)
    elif complete < emitted + n + CONTEXT:
        return None
    if n == 0:
        return None
    left = min(emitted, CONTEXT)
    return Span(emitted - left, min(complete, emitted + n + CONTEXT), left, n)


class Codec:
    def __init__(self, dac: DacModel, *, kernels: bool = True) -> None:
        """Takes `dac` over: its activations are replaced by fused ones, where `kernels` work."""
        assert dac.dtype in (torch.float32, torch.float64)
        self.device = dac.device
        self._dac = dac.train(False).requires_grad_(False)
        _replace_snakes(self._dac, fused=kernels)
        quantizers = self._dac.quantizer.quantizers
        self._size = dac.config.codebook_size
        self._table = torch.cat([q.out_proj(q.codebook.weight.T[None])[0].T for q in quantizers])
        """[9 * 1024, hidden]: what each code adds to the decoder's input, its projection already applied."""
        self._offsets = torch.arange(CODEBOOKS, device=self.device) * self._size

    @property
    def bytes(self) -> int:
        size: int = sum(weight.nbytes for weight in self._dac.parameters())
        return size + self._table.nbytes

    @torch.inference_mode()
    def encode(self, samples: Samples) -> LongTensor:
        """Mono at 44.1 kHz, padded with silence to whole frames, to codes [ceil(n / 512), 9] there."""
        # a copy, since what is shared cannot be written to, and torch warns of that
        waveform = torch.tensor(np.ascontiguousarray(samples), dtype=self._dac.dtype, device=self.device)
        waveform = F.pad(waveform, (0, -len(samples) % HOP))
        codes: Tensor = self._dac.encode(waveform[None, None]).audio_codes
        return codes[0].T.contiguous()  # type: ignore[return-value]

    @torch.inference_mode()
    def decode(self, windows: Sequence[Window]) -> list[Samples]:
        """The middle of each window, `n` * 512 samples; on GPUs windows of one length go as one batch.

        Windows are never padded to a common length: the network pads with zeros at every layer, which
        added frames would change near an end of the sequence. A CPU gains nothing from a batch, and
        alone a window's samples are the same to the bit whatever else is decoded.
        """
        groups: dict[int, list[int]] = {}
        for i, window in enumerate(windows):
            groups.setdefault(i if self.device.type == "cpu" else len(window.frames), []).append(i)
        decoded: dict[int, Tensor] = {}
        batches = [
            group[i : i + MAX_WINDOWS] for group in groups.values() for i in range(0, len(group), MAX_WINDOWS)
        ]
        for group in batches:
            codes = torch.stack([windows[i].frames for i in group]).to(self.device)
            for i, waveform in zip(group, self.decode_frames(codes), strict=True):
                middle = slice(windows[i].left * HOP, (windows[i].left + windows[i].n) * HOP)
                decoded[i] = waveform[middle]
        if not windows:
            return []
        # one copy, and so one wait for the device, for all of them
        audio: Samples = torch.cat([decoded[i] for i in range(len(windows))]).float().cpu().numpy()
        return np.split(audio, np.cumsum([window.n * HOP for window in windows])[:-1])

    def decode_frames(self, codes: Tensor) -> Tensor:
        """Codes [batch, T, 9] on the device to waveforms [batch, T * 512] there, without waiting for them."""
        hidden = F.embedding(codes + self._offsets, self._table).sum(-2)
        waveforms: Tensor = self._dac.decoder(hidden.transpose(1, 2).contiguous())
        return waveforms.squeeze(1)


def load_codec(source: Path, device: torch.device | str, *, kernels: bool = True) -> Codec:
    """Load a DAC checkpoint from the folder `source`; raises ModelNotLoaded with the reason."""
    library_log.disable_progress_bar()  # type: ignore[no-untyped-call]
    library_log.disable_default_handler()
    library_log.enable_propagation()
    try:
        config = DacConfig.from_pretrained(source)
        dac: DacModel
        report: dict[str, Collection[str]]
        dac, report = DacModel.from_pretrained(  # type: ignore[misc]
            source, config=config, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelNotLoaded(f"The codec {str(source)!r} could not be loaded: {error}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelNotLoaded(
            f"The codec {str(source)!r} lacks {len(missing)} weights, among them {missing[0]}"
        )
    shape = (config.sampling_rate, config.hop_length, config.n_codebooks)
    needed = (SAMPLE_RATE, HOP, CODEBOOKS)
    if shape != needed:
        raise ModelNotLoaded(
            f"The codec {str(source)!r} has (rate, hop, codebooks) {shape}; Dia needs {needed}"
        )
    dac.to(device)  # type: ignore[arg-type]
    return Codec(dac, kernels=kernels)


def _replace_snakes(module: nn.Module, *, fused: bool) -> None:
    for name, child in module.named_children():
        if isinstance(child, Snake1d):
            setattr(module, name, Snake(child.alpha, fused=fused))
        else:
            _replace_snakes(child, fused=fused)
