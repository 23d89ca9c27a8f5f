"""Loads a `DiaModel` from the names of a checkpoint, a codec and a device."""

import logging
from collections.abc import Callable

import torch

from dia_server.engine.dia import cpu_ops, large_pages
from dia_server.engine.dia.assemble import assemble, weight_bytes
from dia_server.engine.dia.background_stream import use_device
from dia_server.engine.dia.checkpoint import Checkpoint
from dia_server.engine.dia.codec import load_codec
from dia_server.engine.dia.hub import locate
from dia_server.engine.dia.linear import FBGEMM
from dia_server.engine.dia.memory import DeviceMemory, device_memory, is_out_of_memory, release_cached
from dia_server.engine.dia.model import DiaModel, ModelOptions
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.probe import kernel_fault
from dia_server.engine.dia.state import slot_bytes
from dia_server.engine.dia.weights import Weights, compute_dtype
from dia_server.engine.types import LoadModel
from dia_server.errors import ModelNotLoaded
from dia_server.units import MIB

log = logging.getLogger(__name__)

FOUND, READ, READY = 0.4, 0.9, 1.0
"""Loading progress (0 to 1) when the files are located, when the weights are read, and at the end."""
FEW_SLOTS = 2
"""Maximum slots for which FBGEMM's fp16 is faster than oneDNN's bf16 on CPUs with AVX-512 but without AMX."""


def dia_loader(
    model: str,
    codec: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    max_batch: int,
    max_columns: int | None = None,
    compile: bool = True,
    codec_dtype: str = "fp32",
) -> LoadModel:
    """Return a function that loads Dia and its codec.

    Call the returned function on the thread that will run the model. It raises ModelNotLoaded if a file, the
    device or the dtype cannot be used, or if memory is too short.

    `model` and `codec` are each a hub id or a folder. `device` is "auto" or a torch device name; `dtype` is
    "auto", "bfloat16", "float16", "float32" or "int8". With "int8" the weights of most of the decoder's
    products are int8; see `pick_dtype` for the others.
    `max_batch` is the maximum number of slots; there are fewer if memory is short. `max_columns` is the size
    of a slot in decoder columns; None for the model's own. `compile` compiles the steps that are captured as
    CUDA graphs (CUDA and ROCm only). `codec_dtype` is "fp32" or, on CUDA and ROCm only, "fp16".
    """

    def load(report: Callable[[float], None]) -> DiaModel:
        where = pick_device(device)
        kind = pick_dtype(dtype, where, max_batch)
        half = has_half_codec(codec_dtype, where)
        if where.type == "cuda":
            use_device(where)
        try:
            checkpoint = Checkpoint(locate(model, "DIA_MODEL", lambda share: report(FOUND * share)))
            config = checkpoint.config if max_columns is None else checkpoint.config.with_columns(max_columns)
            # both are located before weights are read, which takes minutes
            codec_folder = locate(codec, "DIA_CODEC", lambda _: report(FOUND))
            fault = kernel_fault(where, kind) if where.type == "cuda" else None
            weights = read_weights(
                checkpoint,
                config,
                where,
                dtype,
                max_batch,
                lambda share: report(FOUND + (READ - FOUND) * share),
                kernels=fault is None,
            )
            audio = load_codec(codec_folder, where, kernels=fault is None, half=half)
            if where.type == "cpu":
                large_pages.collapse()
            release_cached()  # what `quantize` computed with on a GPU
            memory = device_memory(where)
            slots = count_slots(config, weights.dtype, max_batch, memory)
            stored = f"int8 and {kind}" if dtype == "int8" else str(kind)
            _log_memory(weights, audio.bytes, memory, stored, slots)
            loaded = DiaModel(
                weights,
                audio,
                slots,
                ModelOptions(compiled=compile, kernel_fault=fault, prompt_bytes=memory.prompt_bytes),
                report=lambda share: report(READ + (READY - READ) * share),
            )
            if where.type == "cuda":
                loaded.warm_up()
            else:
                loaded.warm_up_step()
            return loaded
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            release_cached()
            raise ModelNotLoaded(f"Too little memory on {where} for {model}: {error}") from error

    return load


def pick_device(name: str) -> torch.device:
    """Return the device `name`; for "auto" CUDA if available, else Metal, else the CPU.

    Raises ModelNotLoaded if torch cannot use the device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.empty(0, device=name).device  # includes the default device's index
    except (RuntimeError, AssertionError) as error:
        raise ModelNotLoaded(f"The device {name!r} cannot be used: {error}") from error
    return device


def pick_dtype(name: str, device: torch.device, max_batch: int) -> torch.dtype:
    """Return the dtype `name`, or the best one for "auto"; raises ModelNotLoaded for an unknown name.

    "auto" means bf16 on CUDA devices that compute in bf16, and fp16 on other GPUs. On CPUs it is the fastest
    for `max_batch` slots: see `_cpu_dtype`. "int8" concerns some weights only; the others are as with "auto",
    but always in bf16 on CPUs that multiply them by loops of our own.
    """
    if name not in ("auto", "int8"):
        dtypes = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
        if name not in dtypes:
            raise ModelNotLoaded(f"The dtype {name!r} is none of auto, {', '.join(dtypes)}, int8")
        return dtypes[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type != "cpu":
        return torch.float16
    if name == "int8" and cpu_ops.multiplies_bf16():
        return torch.bfloat16
    return _cpu_dtype(max_batch)


def has_half_codec(name: str, device: torch.device) -> bool:
    """Return whether the codec's decoder runs in fp16; raises ModelNotLoaded where it would be slow or fail.

    CPUs convert between fp16 and fp32 around each operation, and Metal's convolutions are not checked.
    """
    if name == "fp16" and device.type != "cuda":
        raise ModelNotLoaded(
            f"DIA_CODEC_DTYPE=fp16 needs a GPU with CUDA or ROCm, and Dia runs on {device}; "
            "set DIA_CODEC_DTYPE=fp32"
        )
    return name == "fp16"


def _cpu_dtype(max_batch: int) -> torch.dtype:
    """Return bf16 where the CPU computes in bf16, else fp16, or fp32 without FBGEMM.

    With few slots a step waits for the weights, and FBGEMM reads fp16 faster than oneDNN reads bf16, unless
    the CPU has matrix tiles (AMX); docs/benchmarks.md has the numbers.
    """
    half = torch.float16 if FBGEMM else torch.float32
    if not torch.cpu._is_avx512_bf16_supported():
        return half
    few = max_batch <= FEW_SLOTS and FBGEMM and not torch.cpu._is_amx_tile_supported()
    return half if few else torch.bfloat16


def read_weights(
    checkpoint: Checkpoint,
    config: ModelConfig,
    device: torch.device,
    dtype: str,
    max_batch: int,
    report: Callable[[float], None],
    *,
    kernels: bool,
) -> Weights:
    """Read the weights of `checkpoint` to `device`; `report` receives the share read, 0 to 1.

    `config` is the checkpoint's, possibly with fewer columns; `dtype` and `max_batch` are those of
    `dia_loader`. `kernels` tells whether Triton works, if the device is one of CUDA. Raises ModelNotLoaded.
    """
    kind, int8 = pick_dtype(dtype, device, max_batch), dtype == "int8"
    _check_memory(weight_bytes(config, checkpoint.elements(), kind, int8=int8), config, device, kind)
    return assemble(
        config, checkpoint.tensor, device=device, dtype=kind, int8=int8, kernels=kernels, report=report
    )


def count_slots(config: ModelConfig, dtype: torch.dtype, max_batch: int, memory: DeviceMemory) -> int:
    """Return how many slots fit into `memory`, at most `max_batch`.

    `dtype` is the dtype of the KV caches. Raises ModelNotLoaded if no slot fits.
    """
    each = sum(slot_bytes(config, dtype).values())
    slots = memory.fitting_slots(each, max_batch)
    if not slots:
        raise ModelNotLoaded(
            f"Too little memory: one request takes {_mib(each)} MiB, "
            f"and {_mib(memory.available(1))} MiB are available"
        )
    return slots


def _check_memory(weights: int, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Raise ModelNotLoaded if `weights` bytes and one slot exceed the available memory.

    Called before the weights are read, which takes minutes.
    """
    needed = weights + sum(slot_bytes(config, compute_dtype(dtype, device)).values())
    available = device_memory(device).available(1)
    if needed > available:
        raise ModelNotLoaded(
            f"Too little memory on {device}: the model and one request take {_mib(needed)} MiB in {dtype}, "
            f"and {_mib(available)} MiB are available"
        )


def _log_memory(weights: Weights, codec: int, memory: DeviceMemory, dtype: str, slots: int) -> None:
    """Log the sizes of all parts; `dtype` names that of the stored weights."""
    parts = slot_bytes(weights.config, weights.dtype)
    sizes = {
        "weights": weights.bytes,
        "codec": codec,
        "prompts_at_most": memory.prompt_bytes,
        "margin": memory.margin(slots),
        **{f"slot_{part}": size for part, size in parts.items()},
        "all_slots": slots * sum(parts.values()),
    }
    described = {"device": str(weights.device), "dtype": dtype, "slots": slots}
    log.info("memory", extra=described | {f"{part}_mib": _mib(size) for part, size in sizes.items()})


def _mib(size: int) -> int:
    return size // MIB
