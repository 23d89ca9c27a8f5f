"""The DAC codec: encodes 44.1 kHz audio to frames of 9 codes and decodes them, whole or streamed in windows.

A frame is 512 samples. A decoded sample depends on at most 9.25 frames on either side, so a window with 10
frames of context on both sides decodes to the same samples as the whole sequence. Context is omitted only at
the sequence's own start and end. Weights stay in fp32 (bf16 leaves a signal-to-noise ratio of 12 dB); on GPUs
convolutions may use TF32, torch's default.

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
"""Codes per frame, one from each codebook."""
CONTEXT = 10
"""Context frames on each side of a window's audio; fewer at the start and the end of the sequence."""
MAX_WINDOWS = 16
"""Maximum windows decoded as one batch; `memory.FULL_MARGIN` covers their intermediate results."""
FIRST_CHUNK, LAST_CHUNK = 4, 43
"""Frames in the first chunk (few, for early audio) and in the longest chunk (half a second)."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Frames to decode: `left` frames of context, `n` frames whose audio is returned, then more context."""

    frames: LongTensor
    """Codes [T, 9] on any device, T >= left + n; the frames from left + n on are context."""
    left: int
    n: int


@dataclass(frozen=True, slots=True)
class Span:
    """Indices of the next chunk's frames.

    Frames [start, stop) form the window to decode. Frames [start + left, start + left + n) are those whose
    audio is returned; the others are context.
    """

    start: int
    stop: int
    left: int
    n: int


def plan_chunk(emitted: int, complete: int, ended: bool) -> Span | None:
    """Return the next span to decode, or None if too few frames are complete or none is left.

    `emitted` of the `complete` frames have been passed to the codec already. Chunks grow: 4, 4, 8, 16, 32,
    then 43 frames. After the first, each is at most as long as all earlier chunks together, so that it can be
    generated while they play. Until the sequence has `ended`, a chunk is decoded only once the CONTEXT frames
    after its audio are complete.
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
    """Encodes and decodes with a transformers `DacModel`."""

    def __init__(self, dac: DacModel, device: torch.device | str = "cpu", *, kernels: bool = True) -> None:
        """Replace the activations of `dac` by `Snake` and move it to `device`, both in place.

        `dac` must be on the CPU. `kernels` says whether Triton works.
        """
        assert dac.dtype in (torch.float32, torch.float64)
        assert dac.device.type == "cpu"
        self._dac = dac.train(False).requires_grad_(False)
        _replace_snakes(self._dac, fused=kernels)
        quantizers = self._dac.quantizer.quantizers
        self._size = dac.config.codebook_size
        # on the CPU, in full precision: a GPU would compute it with TF32 convolutions
        table = torch.cat([q.out_proj(q.codebook.weight.T[None])[0].T for q in quantizers])
        self._table = table.to(device)
        """[9 * 1024, hidden]: each code's embedding, already projected to the decoder's input."""
        dac.to(device)
        self.device = dac.device
        self._offsets = torch.arange(CODEBOOKS, device=self.device) * self._size

    @property
    def bytes(self) -> int:
        size: int = sum(weight.nbytes for weight in self._dac.parameters())
        return size + self._table.nbytes

    @torch.inference_mode()
    def encode(self, samples: Samples) -> LongTensor:
        """Encode n mono samples at 44.1 kHz to codes [ceil(n / 512), 9] on the codec's device.

        The last frame is padded with silence.
        """
        # a copy: torch warns about read-only arrays, and shared samples are read-only
        waveform = torch.tensor(np.ascontiguousarray(samples), dtype=self._dac.dtype, device=self.device)
        waveform = F.pad(waveform, (0, -len(samples) % HOP))
        codes: Tensor = self._dac.encode(waveform[None, None]).audio_codes
        return codes[0].T.contiguous()  # type: ignore[return-value]

    @torch.inference_mode()
    def decode(self, windows: Sequence[Window]) -> list[Samples]:
        """Decode each window; return the audio of its `n` frames: n * 512 samples in fp32 on the CPU.

        On GPUs windows of equal length are decoded in batches of up to MAX_WINDOWS. Windows are never padded
        to a common length: the network zero-pads at every layer, so added frames would change the samples
        near the sequence's end. On CPUs, where batching gains nothing, windows are decoded one by one, which
        keeps their samples bit-identical whatever else is decoded.
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
        # copy all windows to the host at once: each copy would make the host wait for the device
        audio: Samples = torch.cat([decoded[i] for i in range(len(windows))]).float().cpu().numpy()
        return np.split(audio, np.cumsum([window.n * HOP for window in windows])[:-1])

    def decode_frames(self, codes: Tensor) -> Tensor:
        """Decode codes [batch, T, 9] to waveforms [batch, T * 512], both on the codec's device.

        On GPUs only queues the work.
        """
        hidden = F.embedding(codes + self._offsets, self._table).sum(-2)
        waveforms: Tensor = self._dac.decoder(hidden.transpose(1, 2).contiguous())
        return waveforms.squeeze(1)


def load_codec(source: Path, device: torch.device | str, *, kernels: bool = True) -> Codec:
    """Load a DAC checkpoint from the folder `source`; `kernels` says whether Triton works.

    Raises ModelNotLoaded if the checkpoint cannot be read, lacks weights, or does not fit Dia in its sample
    rate, hop length and number of codebooks.
    """
    library_log.disable_progress_bar()
    library_log.disable_default_handler()
    library_log.enable_propagation()
    try:
        config = DacConfig.from_pretrained(source)
        dac: DacModel
        report: dict[str, Collection[str]]
        dac, report = DacModel.from_pretrained(
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
    return Codec(dac, device, kernels=kernels)


def _replace_snakes(module: nn.Module, *, fused: bool) -> None:
    for name, child in module.named_children():
        if isinstance(child, Snake1d):
            setattr(module, name, Snake(child.alpha, fused=fused))
        else:
            _replace_snakes(child, fused=fused)
