"""Minimum bytes that a decode step reads, this machine's read bandwidth, and its description."""

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

import torch
import transformers

from dia_server.engine.dia.assemble import weight_bytes
from dia_server.engine.dia.model_config import ModelConfig
from dia_server.engine.dia.weights import compute_dtype


def step_bytes(
    config: ModelConfig,
    dtype: torch.dtype,
    device: str,
    batch: int,
    columns: float,
    text_bytes: float,
    *,
    int8: bool = False,
) -> float:
    """Return the bytes that a step of `batch` utterances must read; `int8` as for `assemble`.

    These are the decoder's weights once, keys and values of `columns` for the conditional and unconditional
    row of each utterance, and cross-attention's keys and values of `text_bytes` for the conditional row.
    """
    audio, cross = config.decoder, config.cross_heads * config.cross_head_dim
    attention = audio.hidden * audio.head_dim * 2 * (audio.heads + audio.kv_heads)
    layer = attention + 2 * audio.hidden * cross + 3 * audio.hidden * audio.mlp
    weights = audio.layers * layer + config.channels * audio.vocabulary * audio.hidden
    own = audio.layers * 2 * audio.kv_heads * audio.head_dim
    text = audio.layers * 2 * config.cross_kv_heads * config.cross_head_dim
    cached = compute_dtype(dtype, torch.device(device))
    stored = weight_bytes(config, weights, dtype, int8=int8)
    return stored + cached.itemsize * batch * (2 * columns * own + text_bytes * text)


def read_bandwidth(device: str, size: int) -> float:
    """Return bytes per second: the best of 8 sums over `size` bytes, which must exceed the caches."""
    data = torch.ones(size // 4, device=device)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        data.sum().item()
        best = min(best, time.perf_counter() - start)
    return size / best


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def describe_machine(device: str) -> dict[str, str | int]:
    versions: dict[str, str | int] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if device.startswith("cuda"):
        import triton  # type: ignore[import-untyped]

        return {
            "device": torch.cuda.get_device_name(device),
            "runtime": torch.version.cuda or torch.version.hip or "",
            "driver": _driver_version(),
            "triton": triton.__version__,
            **versions,
        }
    return {
        "device": _cpu_name(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        **versions,
    }


def _driver_version() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]


def _cpu_name() -> str:
    """Return the CPU model and the instruction sets that matter for bf16."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in facts.get("flags", "")]
    return f"{facts.get('model name', platform.machine())} ({', '.join(sets)})"
