import os
import random
import subprocess
import sys
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import DacModel

from dia_server.engine.dia.codec import Codec, load_codec
from dia_server.engine.dia.windows import CONTEXT, Window, plan_chunk
from dia_server.engine.types import Samples
from dia_server.errors import ModelNotLoaded
from dia_server.units import HOP
from tests.engine.dia.tiny import save_dac, save_dia, tiny_dac


def lively_dac(dtype: torch.dtype = torch.float32) -> DacModel:
    """Return a codec whose output is loud and depends on each frame of the context, which exposes errors."""
    dac = tiny_dac()
    generator = torch.Generator().manual_seed(0)
    for name, weight in dac.named_parameters():
        if name.endswith("alpha"):
            weight.uniform_(0.5, 2.0, generator=generator)
        else:
            weight.normal_(0.0, 0.12, generator=generator)
    dac.to(dtype)
    return dac


def random_frames(count: int, seed: int = 0) -> torch.LongTensor:
    return torch.randint(0, 1024, (count, 9), generator=torch.Generator().manual_seed(seed))  # type: ignore[return-value]


def streamed(codec: Codec, frames: torch.LongTensor, arrivals: list[int], lead: float) -> Samples:
    """Decode `frames` in chunks, with `arrivals[0]`, `arrivals[1]`, ... and finally all frames available."""
    chunks: list[Samples] = []
    emitted = 0
    for complete in [*arrivals, len(frames)]:
        ended = complete == len(frames)
        while span := plan_chunk(emitted, complete, ended, lead):
            window = Window(frames[span.start : span.stop], span.left, span.n)  # type: ignore[arg-type]
            chunks += codec.decode([window])
            emitted += span.n
    return np.concatenate(chunks)


def decibels(signal: Samples, other: Samples) -> float:
    power, noise = np.mean(signal.astype(np.float64) ** 2), np.mean((signal.astype(np.float64) - other) ** 2)
    return float("inf") if noise == 0 else float(10 * np.log10(power / noise))


def test_decoding_equals_transformers() -> None:
    frames = random_frames(37)
    expected = lively_dac().decode(audio_codes=frames.T[None]).audio_values[0].numpy()

    [decoded] = Codec(lively_dac()).decode([Window(frames, 0, 37)])

    assert expected.std() > 0.05
    assert decibels(expected, decoded) > 100


def test_the_code_table_is_computed_on_the_cpu_before_the_codec_moves() -> None:
    seen: list[str] = []
    dac = tiny_dac()
    for name, module in dac.quantizer.named_modules():
        if name.endswith("out_proj"):
            module.register_forward_pre_hook(lambda _, given: seen.append(given[0].device.type))

    codec = Codec(dac, "meta")

    assert seen == ["cpu"] * 9
    assert {codec.device.type, codec._table.device.type, codec._offsets.device.type} == {"meta"}
    assert {tensor.device.type for tensor in dac.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("length", [1, 511, 512, 513, 30_000])
def test_encoding_equals_transformers(length: int) -> None:
    samples = np.random.default_rng(length).normal(0, 0.3, length).astype(np.float32)
    padded = torch.from_numpy(np.pad(samples, (0, -length % HOP)))
    expected = lively_dac().encode(padded[None, None]).audio_codes[0].T

    codes = Codec(lively_dac()).encode(samples)

    assert codes.shape == (-(-length // HOP), 9)
    assert torch.equal(codes, expected)


def test_chunks_put_together_equal_the_whole() -> None:
    codec = Codec(lively_dac())
    rng = random.Random(1)
    for plan in range(20):
        count = rng.choice([1, 3, 13, 14, 15, 40, 107, 130, 250])
        frames = random_frames(count, plan)
        whole = codec.decode_frames(frames[None])[0].numpy()

        arrivals = sorted(rng.sample(range(count), rng.randint(0, min(count, 30))))

        lead = inf if plan % 2 else 0.0
        assert decibels(whole, streamed(codec, frames, arrivals, lead)) > 70


def test_padding_changes_no_sample() -> None:
    codec = Codec(lively_dac(torch.float64))
    codes = torch.stack([random_frames(18, seed) for seed in range(3)])
    lengths = torch.tensor([1, 11, 18])

    padded = codec.decode_frames(codes, lengths)

    for frames, length, waveform in zip(codes, lengths.tolist(), padded, strict=True):
        alone = codec.decode_frames(frames[None, :length])[0]
        assert (waveform[: length * HOP] - alone).abs().max() < 1e-13


SPANS = [(0, 4), (4, 4), (8, 8), (16, 16), (20, 7), (32, 28)]


def error_in_fp64(context: int, spans: list[tuple[int, int]]) -> float:
    """Return the largest error of chunks (start, frames) of 60 decoded with `context` on each side."""
    codec = Codec(lively_dac(torch.float64))
    worst = 0.0
    frames = random_frames(60)
    whole = codec.decode_frames(frames[None])[0]
    for start, n in spans:
        left, right = min(start, context), min(60 - start - n, context)
        part = codec.decode_frames(frames[None, start - left : start + n + right])[0]
        error = part[left * HOP : (left + n) * HOP] - whole[start * HOP : (start + n) * HOP]
        worst = max(worst, float(error.abs().max()))
    return worst


def test_ten_frames_of_context_are_enough_and_nine_are_not() -> None:
    assert error_in_fp64(CONTEXT, [*SPANS, (59, 1)]) < 1e-13
    assert error_in_fp64(CONTEXT - 1, SPANS) > 1e-6


@pytest.mark.full
@pytest.mark.skipif(not torch._C.has_mkl, reason="asks MKL to be reproducible")
def test_chunks_are_bit_identical_where_matrix_products_are() -> None:
    """MKL rounds products depending on their shape, unless set to be reproducible."""
    code = "from tests.engine.dia.test_codec import *; print(error_in_fp64(CONTEXT, SPANS))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ
        | {
            "MKL_CBWR": "COMPATIBLE",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        },
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )

    assert float(run.stdout or run.stderr) == 0.0


def rounded_to_tf32(tensor: Tensor) -> Tensor:
    """Round fp32 to ten bits of mantissa, as tensor cores do with what they multiply in TF32."""
    return ((tensor.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


class RoundOnce(TorchFunctionMode):
    """Sums convolutions of fp16 in fp32, bias included, and rounds their outputs once, on any CPU.

    With cuDNN, PyTorch adds the bias to the rounded output, and so rounds twice. Its own transposed
    convolutions on CPUs without instructions for fp16 round each product of a tap and each sum of two taps.
    """

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (torch.conv2d, torch.conv_transpose2d):
            return func(*args, **kwargs or {})
        x, weight, bias, *shape = args
        assert {x.dtype, weight.dtype, bias.dtype} == {torch.float16}
        self.count += 1
        return func(x.float(), weight.float(), bias.float(), *shape, **kwargs or {}).half()


def test_fp16_is_as_exact_as_tf32() -> None:
    """TF32 rounds the inputs of convolutions to as many bits as fp16; fp16 rounds their outputs too."""
    frames = random_frames(24)[None]
    exact = Codec(lively_dac(torch.float64)).decode_frames(frames)[0].numpy()
    tf32 = Codec(lively_dac())
    for module in tf32._dac.decoder.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            module.weight.copy_(rounded_to_tf32(module.weight))
            module.register_forward_pre_hook(lambda _, given: (rounded_to_tf32(given[0]),))
    half = Codec(lively_dac(), half=True)

    with RoundOnce() as rounded:
        made = half.decode_frames(frames)

    assert made.dtype == torch.float16
    assert rounded.count == 30  # all convolutions
    of_tf32 = decibels(exact, tf32.decode_frames(frames)[0].numpy())
    of_half = decibels(exact, made[0].float().numpy())
    assert of_tf32 < 80  # else the rounding has been lost
    assert of_half > of_tf32 - 4


def test_the_codec_in_fp16_decodes_padded_windows() -> None:
    codec, half = Codec(lively_dac()), Codec(lively_dac(), half=True)
    windows = [Window(random_frames(11), 2, 9), Window(random_frames(18, 1), 4, 4)]

    made = half.decode(windows)

    for one, other in zip(codec.decode(windows), made, strict=True):
        assert other.dtype == np.float32
        assert decibels(one, other) > 40
    assert half.bytes < codec.bytes


def test_windows_of_a_batch_do_not_touch_each_other() -> None:
    codec = Codec(lively_dac())
    windows = [Window(random_frames(n + 14, n), 4, n) for n in (4, 8, 4, 43, 8, 4)]

    together = codec.decode(windows)

    for window, samples in zip(windows, together, strict=True):
        [alone] = codec.decode([window])
        assert samples.shape == (window.n * HOP,)
        assert np.array_equal(alone, samples)


def test_a_batch_decodes_what_its_members_do() -> None:
    codec = Codec(lively_dac())
    batch = torch.stack([random_frames(20, seed) for seed in range(3)])

    together = codec.decode_frames(batch).numpy()

    for frames, waveform in zip(batch, together, strict=True):
        assert decibels(codec.decode_frames(frames[None])[0].numpy(), waveform) > 100


def test_no_windows_give_no_samples() -> None:
    assert Codec(tiny_dac()).decode([]) == []


def test_a_codec_is_loaded_from_a_folder(tmp_path: Path) -> None:
    frames = random_frames(5)
    dac = lively_dac()
    save_dac(tmp_path, dac)

    loaded = load_codec(tmp_path, "cpu")

    [expected], [samples] = (codec.decode([Window(frames, 0, 5)]) for codec in (Codec(dac), loaded))
    assert np.array_equal(expected, samples)


def test_a_broken_codec_is_reported_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(ModelNotLoaded, match="nowhere"):
        load_codec(tmp_path / "nowhere", "cpu")

    mono = tiny_dac().config
    mono.n_codebooks = 8
    save_dac(tmp_path / "eight", DacModel(mono))
    with pytest.raises(ModelNotLoaded, match="needs"):
        load_codec(tmp_path / "eight", "cpu")

    save_dac(tmp_path / "half")
    weights = tmp_path / "half" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ModelNotLoaded, match="could not be loaded"):
        load_codec(tmp_path / "half", "cpu")


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    save_dia(tmp_path)
    with pytest.raises(ModelNotLoaded):
        load_codec(tmp_path, "cpu")
