"""Products of activations by int8 weights, for CPUs that multiply bytes (AVX-512's VNNI), compiled by Numba.

An instruction of VNNI multiplies 64 pairs of bytes, an unsigned and a signed one, and adds each four products
to one of 16 sums in int32. The weights are stored as w + 128, in the order in which it reads them. Each GROUP
of a row's activations is rounded to 8 bits, with a scale of its own. A group's sums are exact, and the groups
are added in fp32 in one order, so the other rows of a batch do not matter.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

# Numba's cache does not notice when these change: then delete __pycache__
from dia_server.engine.dia.cpu_kernels import Numbers, compiled, narrow, wide
from dia_server.engine.dia.cpu_vectors import (
    LANES,
    ROWS_AT_ONCE,
    SINGLES,
    VECTOR,
    WORDS,
    Vectors,
    rows_at_once,
)

QUAD = 4
"""Inputs that an instruction adds up for each output."""
GROUP = 32
"""Inputs whose activations share a scale."""
LARGEST = 127
"""Largest magnitude of a rounded activation."""
OFFSET = 128
"""Number that is added to each weight. A group's sums begin at -OFFSET times the sum of its activations."""
INFINITY = 0x7F80_0000
"""Bits of infinity in fp32. Larger ones, without the sign, are NaN."""
TINY = 0x0DA2_4260
"""Bits of 1e-30 in fp32, the least magnitude by which a group is scaled."""


def _block_product(
    typing: Any, weights: Any, rounded: Any, scales: Any, starts: Any, groups: Any, sums: Any, rows: Any
) -> Any:
    """Multiply a block of weights [groups, 8, 16, 4] by activations `rounded` [rows, groups, 32] to int8.

    `scales` fp32 and `starts` int32, both [rows, groups], are those of the groups, and `sums` fp32 [rows, 16]
    gets the products. All five are addresses; `rows` is one of ROWS_AT_ONCE.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        weights, rounded, scales, starts, groups, sums, rows = arguments
        vectors = Vectors(builder)

        def write(count: int) -> None:
            totals = vectors.sums(count)
            with cgutils.for_range(builder, groups) as loop:
                here = vectors.of_rows(groups, loop.index, count)
                exact = [vectors.broadcast(vectors.address(starts, group, 4), WORDS) for group in here]
                for quad in range(GROUP // QUAD):
                    place = vectors.address(weights, loop.index, GROUP * LANES, quad * VECTOR)
                    block = vectors.load_weights(place, WORDS, count)
                    for row, group in enumerate(here):
                        four = vectors.broadcast(vectors.address(rounded, group, GROUP, quad * QUAD), WORDS)
                        values = exact[row], block, four
                        exact[row] = vectors.call("llvm.x86.avx512.vpdpbusd.512", WORDS, *values)
                for total, group, found in zip(totals, here, exact, strict=True):
                    scale = vectors.broadcast(vectors.address(scales, group, 4), SINGLES)
                    values = builder.sitofp(found, SINGLES), scale, builder.load(total)
                    builder.store(vectors.call("llvm.fma.v16f32", SINGLES, *values), total)
            vectors.store_sums(totals, sums)

        vectors.for_rows(rows, write)
        return context.get_dummy_value()

    return numba.types.void(*[numba.types.intp] * 7), generate


_multiply_block: Any = intrinsic(_block_product)
"""The function of compiled code whose type and instructions `_block_product` defines."""


@compiled
def multiply(
    first: int, last: int, x: Numbers, weights: NDArray[np.uint8], scale: Numbers, out: Numbers
) -> None:
    """Compute the outputs of the blocks `first` to `last` of `cpu_ops.multiply_bytes`."""
    rows, groups = len(x), weights.shape[1] * QUAD // GROUP
    rounded = np.empty((rows, groups, GROUP), np.int8)
    scales, starts = np.empty((rows, groups), np.float32), np.empty((rows, groups), np.int32)
    padded = np.zeros((groups, GROUP), np.float32)
    for row in range(rows):
        _round(x[row], padded, rounded[row], scales[row], starts[row])
    sums = np.empty((ROWS_AT_ONCE[0], LANES), np.float32)
    here = sums.ctypes.data
    for block in range(first, last):
        place, output, begin = weights[block].ctypes.data, block * LANES, 0
        while begin < rows:
            source = rounded[begin].ctypes.data
            factors, start = scales[begin].ctypes.data, starts[begin].ctypes.data
            count = rows_at_once(rows - begin)
            _multiply_block(place, source, factors, start, groups, here, count)
            for i in range(count):
                scaled, made = scale[output : output + LANES], out[begin + i, output : output + LANES]
                for lane in range(len(made)):
                    made[lane] = narrow(sums[i, lane] * scaled[lane], made)
            begin += count


@compiled
def _round(
    x: Numbers, padded: Numbers, rounded: NDArray[np.int8], scales: Numbers, starts: NDArray[np.int32]
) -> None:
    """Round a row x [in] to `rounded` [groups, 32], and give each group's scale and the start of its sums.

    The scale of a group in which a number is not finite is NaN. `padded` fp32 [groups, 32] holds the row
    meanwhile; after its first `in` elements it is zero.
    """
    flat, largest_bits = padded.ravel(), scales.view(np.int32)
    for i in range(len(x)):
        flat[i] = wide(x[i])
    for group in range(len(padded)):
        numbers = padded[group]
        # bits are compared, because a maximum that keeps NaN is not vectorised
        bits, all_bits = np.int32(TINY), numbers.view(np.int32)
        for i in range(GROUP):
            bits = np.int32(max(bits, np.int32(all_bits[i] & np.int32(0x7FFF_FFFF))))
        finite = bits < INFINITY
        largest_bits[group] = bits
        inverse = np.float32(LARGEST) / scales[group] if finite else np.float32(0)
        total = np.int32(0)
        for i in range(GROUP):
            level = np.int32(np.rint(numbers[i] * inverse))
            rounded[group, i] = np.int8(level)
            total = np.int32(total + level)
        starts[group] = -OFFSET * total
        scales[group] = scales[group] / np.float32(LARGEST) if finite else np.float32(np.nan)
