"""Operations of a decode step on CPUs: attention, norms and gates, each a loop that Numba compiles.

A step's tensors are so small that PyTorch takes longer to call an operation than to compute it. Each of these
replaces 5 to 40 of PyTorch's, and reads keys and values in place.
"""

import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

AVAILABLE = importlib.util.find_spec("numba") is not None
"""Whether Numba is installed; `benchmarks.gpu_check` runs on machines without it."""
if AVAILABLE:
    import numba

    from dia_server.engine.dia import cpu_bf16, cpu_int8, cpu_kernels, cpu_sampling
    from dia_server.engine.dia.cpu_bf16 import PAIR, TURN
    from dia_server.engine.dia.cpu_int8 import GROUP, OFFSET, QUAD
    from dia_server.engine.dia.cpu_vectors import LANES
ELEMENTS_PER_THREAD = 1 << 22
"""Elements for which another thread is worth its start: 50 to 100 µs while PyTorch's threads spin."""


def suits(x: Tensor) -> bool:
    """Return whether these operations can read x."""
    readable = AVAILABLE and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    return readable and not torch.compiler.is_compiling()


def numbers(x: Tensor) -> NDArray[Any]:
    """Return the memory of x, in fp32 or bf16, as NumPy's array."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def self_attention(
    qkv: Tensor, cache: Tensor, rotation: tuple[Tensor, Tensor], slots: Tensor, position: Tensor
) -> Tensor:
    """Compute `attention.fused_self_attention` on a CPU."""
    rows, kv_heads, dim = qkv.shape[0], cache.shape[1] // 2, cache.shape[3]
    out = qkv.new_empty(rows, qkv.shape[1] - 2 * kv_heads, dim)
    cos, sin = (table.numpy() for table in rotation)
    chosen, positions = slots.numpy(), position.numpy()
    arguments = (numbers(qkv), numbers(cache), cos, sin, chosen, positions, numbers(out))
    elements = 4 * kv_heads * dim * int(positions[chosen].sum())
    _spread(cpu_kernels.self_attention, rows * kv_heads, elements, *arguments)
    return out


def cross_attention(q: Tensor, cache: Tensor, slots: Tensor, lengths: Tensor) -> Tensor:
    """Compute `attention.fused_cross_attention` on a CPU."""
    heads, dim = cache.shape[1], cache.shape[3]
    out = torch.empty_like(q)
    chosen, known = slots.numpy(), lengths.numpy()
    arguments = (numbers(q), numbers(cache), chosen, known, numbers(out))
    elements = heads * dim * int(known[chosen].sum())
    _spread(cpu_kernels.cross_attention, q.shape[0] * heads // 2, elements, *arguments)
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Compute `F.rms_norm` over the last dimension of x, in fp32 until the result is rounded."""
    rows = _matrix(x)
    out = torch.empty_like(rows)
    arguments = (numbers(rows), numbers(weight), np.float32(eps), numbers(out))
    _spread(cpu_kernels.rms_norm, rows.shape[0], x.numel(), *arguments)
    return out if x is rows else out.view(x.shape)


def gate(x: Tensor) -> Tensor:
    """Compute `products.gate`, in fp32 until the result is rounded."""
    rows = _matrix(x)
    out = x.new_empty(rows.shape[0], x.shape[-1] // 2)
    _spread(cpu_kernels.gate, rows.shape[0], x.numel(), numbers(rows), numbers(out))
    return out if x is rows else out.view(*x.shape[:-1], -1)


def sample(
    cond: Tensor,
    uncond: Tensor,
    column: Tensor,
    temperature: Tensor,
    cfg_scale: Tensor,
    top_p: Tensor,
    top_k: Tensor,
    seed: Tensor,
    eos: int,
) -> Tensor:
    """Compute `sampling.sample`; all tensors but the logits are [B]."""
    out = torch.empty(cond.shape[:2], dtype=torch.long)
    tensors = (cond, uncond, column, temperature, cfg_scale, top_p, top_k, seed)
    arguments: Any = (*(tensor.numpy() for tensor in tensors), eos, out.numpy())
    cpu_sampling.sample(*arguments)
    return out


def commit(*arguments: Any) -> None:
    """Compute `step_ops.commit`, with its arguments."""
    *tensors, logits, eos, pad, tail = arguments
    arrays = [tensor.numpy() for tensor in (*tensors, logits.flatten(1))]
    values: Any = (*arrays, eos, pad, tail)
    cpu_sampling.commit(*values)


def multiplies_bytes() -> bool:
    """Return whether `multiply_bytes` works here: the CPU has AVX-512's VNNI."""
    return _uses_all_instructions() and torch.cpu._is_vnni_supported()


def multiplies_bf16() -> bool:
    """Return whether `multiply_bf16` is best here: the CPU has AVX-512's bf16 instructions and no AMX tiles.

    With tiles oneDNN multiplies the many rows of a prompt faster.
    """
    tiles = torch.cpu._is_amx_tile_supported()
    return _uses_all_instructions() and torch.cpu._is_avx512_bf16_supported() and not tiles


def _uses_all_instructions() -> bool:
    """Return whether Numba compiles for this CPU.

    Where NUMBA_CPU_NAME or NUMBA_CPU_FEATURES choose the instructions, one may be missing, and LLVM would
    abort.
    """
    if not AVAILABLE:
        return False
    chosen = vars(numba.config)
    return chosen["CPU_NAME"] is None and chosen["CPU_FEATURES"] is None


def pack_bytes(values: Tensor) -> NDArray[np.uint8]:
    """Return int8 weights [out, in] as `multiply_bytes` reads them: uint8 [out / 16, in / 4, 16, 4].

    They are padded with zeros to whole blocks and groups.
    """
    outputs, inputs = values.shape
    padded = F.pad(values, (0, -inputs % GROUP, 0, -outputs % LANES)).to(torch.int16)
    blocks = (padded + OFFSET).to(torch.uint8).view(-1, LANES, padded.shape[1] // QUAD, QUAD)
    return blocks.transpose(1, 2).contiguous().numpy()


def multiply_bytes(x: Tensor, packed: NDArray[np.uint8], scale: NDArray[np.float32]) -> Tensor:
    """Return x W^T [..., out] for x [..., in], weights that `pack_bytes` has packed, and their scales [out].

    Each 32 activations are rounded to 8 bits, by at most 1/254 of the largest of them.
    """
    rows = _matrix(x)
    out = x.new_empty(rows.shape[0], len(scale))
    arguments = (numbers(rows), packed, scale, numbers(out))
    _spread(cpu_int8.multiply, len(packed), packed.size, *arguments)
    return out if x is rows else out.view(*x.shape[:-1], -1)


def pack_bf16(weight: Tensor) -> NDArray[np.uint16]:
    """Return a weight [out, in] in bf16 as `multiply_bf16` reads it: uint16 [out / 16, in / 2, 16, 2].

    It is padded with zeros to whole blocks and turns.
    """
    outputs, inputs = weight.shape
    padded = F.pad(weight, (0, -inputs % TURN, 0, -outputs % LANES))
    blocks = padded.view(-1, LANES, padded.shape[1] // PAIR, PAIR).transpose(1, 2).contiguous()
    packed: NDArray[np.uint16] = numbers(blocks)
    return packed


def multiply_bf16(x: Tensor, packed: NDArray[np.uint16], outputs: int) -> Tensor:
    """Return x W^T [..., outputs] for x [..., in] in bf16 and a weight that `pack_bf16` has packed."""
    rows = _matrix(F.pad(x, (0, -x.shape[-1] % TURN)))
    out = x.new_empty(rows.shape[0], outputs)
    _spread(cpu_bf16.multiply, len(packed), packed.size, numbers(rows), packed, numbers(out))
    return out.view(*x.shape[:-1], -1)


def _matrix(x: Tensor) -> Tensor:
    return x if x.dim() == 2 and x.is_contiguous() else x.reshape(-1, x.shape[-1]).contiguous()


def _spread(kernel: Callable[..., None], tasks: int, elements: int, *arguments: Any) -> None:
    """Call `kernel` with ranges of tasks and the `arguments`, in as many threads as are worth it.

    All tasks read `elements` numbers.
    """
    threads = min(torch.get_num_threads(), tasks, 1 + elements // ELEMENTS_PER_THREAD)
    if threads == 1:
        kernel(0, tasks, *arguments)
        return
    mine, *others = pairwise(tasks * i // threads for i in range(threads + 1))
    started = [_threads().submit(kernel, *part, *arguments) for part in others]
    kernel(*mine, *arguments)
    for done in started:
        done.result()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "kernels")
