"""The DAC codec: encodes 44.1 kHz audio to frames of 9 codes and decodes windows of frames.

A frame is 512 samples. `windows` says which frames are decoded together, in batches of few shapes; on CUDA
each shape is a CUDA graph. Weights are in fp32 (bf16 leaves a signal-to-noise ratio of 12 dB); on GPUs
convolutions may use TF32, torch's default. On CUDA the decoder may run in fp16 instead, whose numbers have as
many bits as TF32's, with the channels last in memory, as tensor cores read them.

`Codec` knows nothing of slots, delay patterns or special tokens: its codes are 0 to 1023.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import LongTensor, Tensor, nn
from transformers import DacConfig, DacModel
from transformers.models.dac.modeling_dac import Snake1d
from transformers.utils import logging as library_log

from dia_server.engine.dia.codec_graphs import CodecGraphs
from dia_server.engine.dia.snake import Padding, Snake
from dia_server.engine.dia.windows import SHAPES, Shape, Window, batches, padded_length
from dia_server.engine.types import Samples
from dia_server.errors import ModelNotLoaded
from dia_server.units import HOP, SAMPLE_RATE

CODEBOOKS = 9
"""Codes per frame, one from each codebook."""


class Codec:
    """Encodes and decodes with a transformers `DacModel`."""

    def __init__(
        self,
        dac: DacModel,
        device: torch.device | str = "cpu",
        *,
        kernels: bool = True,
        half: bool = False,
    ) -> None:
        """Replace the activations of `dac` by `Snake` and move it to `device`, both in place.

        `dac` must be on the CPU. `kernels` says whether Triton works. With `half`, the decoder's convolutions
        become 2-D convolutions in fp16.
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
        self._half = half
        if half:
            _halve_convolutions(self._dac.decoder)
        dac.to(device)
        self.device = dac.device
        self._offsets = torch.arange(CODEBOOKS, device=self.device) * self._size
        self._graphs: CodecGraphs | None = None

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
    def warm_up(self, most: int) -> None:
        """On CUDA decode one batch of each shape of at most `most` windows, and capture it as a CUDA graph.

        Call it on the thread and the stream that decode. If it raises, `decode` works without graphs.
        """
        if self.device.type == "cuda":
            shapes = [shape for shape in SHAPES if shape.windows <= most]
            self._graphs = CodecGraphs(self.decode_frames, CODEBOOKS, self.device, shapes)

    @torch.inference_mode()
    def decode(self, windows: Sequence[Window]) -> list[Samples]:
        """Decode each window; return the audio of its `n` frames: n * 512 samples in fp32 on the CPU.

        On GPUs windows of equal padded length are decoded in batches. On CPUs, where batching gains nothing,
        windows are decoded one by one, which keeps their samples bit-identical whatever else is decoded.
        """
        groups: dict[int, list[int]] = {}
        for i, window in enumerate(windows):
            groups.setdefault(padded_length(len(window.frames)), []).append(i)
        decoded: dict[int, Tensor] = {}
        for length, group in groups.items():
            alone = self.device.type == "cpu"
            for batch in ([i] for i in group) if alone else batches(group, length):
                waveforms = self._decode_batch([windows[i].frames for i in batch], length)
                for i, waveform in zip(batch, waveforms, strict=True):
                    middle = slice(windows[i].left * HOP, (windows[i].left + windows[i].n) * HOP)
                    decoded[i] = waveform[middle].clone()  # the next batch may overwrite the waveform
        if not windows:
            return []
        # copy all windows to the host at once: each copy would make the host wait for the device
        audio: Samples = torch.cat([decoded[i] for i in range(len(windows))]).float().cpu().numpy()
        return np.split(audio, np.cumsum([window.n * HOP for window in windows])[:-1])

    def _decode_batch(self, windows: Sequence[Tensor], length: int) -> Tensor:
        """Decode windows [T, 9], T <= length, to waveforms [batch, length * 512] on the codec's device."""
        codes = torch.zeros(len(windows), length, CODEBOOKS, dtype=torch.long)
        for row, window in zip(codes, windows, strict=True):
            row[: len(window)] = window
        frames = torch.tensor([len(window) for window in windows])
        graph = None if self._graphs is None else self._graphs.find(Shape(len(windows), length))
        if graph is not None:
            return graph.run(codes, frames)
        full = bool((frames == length).all())
        return self.decode_frames(codes.to(self.device), None if full else frames.to(self.device))

    def decode_frames(self, codes: Tensor, frames: Tensor | None = None) -> Tensor:
        """Decode codes [batch, T, 9] to waveforms [batch, T * 512], both on the codec's device.

        With `frames` [batch], a window's first samples are those that its first `frames` frames have alone,
        and the others are meaningless. On GPUs only queues the work.
        """
        hidden = F.embedding(codes + self._offsets, self._table).sum(-2)
        padding = None
        if frames is not None:
            padding = Padding(frames, codes.shape[1])
            hidden *= padding.mask(codes.shape[1])[:, :, None]
        hidden = hidden.transpose(1, 2)
        if self._half:
            hidden = hidden[:, :, None].to(torch.float16, memory_format=torch.channels_last)
        else:
            hidden = hidden.contiguous()
        return _run_decoder(self._dac.decoder, hidden, padding).flatten(1)


def load_codec(
    source: Path, device: torch.device | str, *, kernels: bool = True, half: bool = False
) -> Codec:
    """Load a DAC checkpoint from the folder `source`; `Codec` describes the other arguments.

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
    return Codec(dac, device, kernels=kernels, half=half)


def _replace_snakes(module: nn.Module, *, fused: bool) -> None:
    for name, child in module.named_children():
        if isinstance(child, Snake1d):
            setattr(module, name, Snake(child.alpha, fused=fused))
        else:
            _replace_snakes(child, fused=fused)


def _run_decoder(decoder: Any, x: Tensor, padding: Padding | None) -> Tensor:
    """Run the decoder of a `DacModel`, as its own `forward` does, on x [batch, channels, T].

    If its convolutions are 2-D, x is [batch, channels, 1, T].
    """
    x = decoder.conv1(x)
    for block in decoder.block:
        x = block.conv_t1(block.snake1(x, padding))
        for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
            x = x + unit.conv2(unit.snake2(unit.conv1(unit.snake1(x, padding)), padding))
    return torch.tanh(decoder.conv2(decoder.snake1(x, padding)))


def _halve_convolutions(module: nn.Module) -> None:
    """Replace all convolutions by 2-D ones over [batch, channels, 1, T] in fp16, with the channels last."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv1d | nn.ConvTranspose1d):
            wide: nn.Conv2d | nn.ConvTranspose2d = _wide(child)
            wide.load_state_dict({"weight": child.weight[:, :, None], "bias": child.bias})
            wide.to(torch.float16, memory_format=torch.channels_last)  # type: ignore[call-overload]
            setattr(module, name, wide.requires_grad_(False))
        else:
            _halve_convolutions(child)


def _wide(conv: nn.Conv1d | nn.ConvTranspose1d) -> nn.Conv2d | nn.ConvTranspose2d:
    """Return a 2-D convolution over rows of height 1 with the shape of `conv`, and weights of its own."""
    make = nn.Conv2d if isinstance(conv, nn.Conv1d) else nn.ConvTranspose2d
    return make(
        conv.in_channels,
        conv.out_channels,
        (1, conv.kernel_size[0]),
        stride=(1, conv.stride[0]),
        padding=(0, int(conv.padding[0])),
        dilation=(1, conv.dilation[0]),
    )
