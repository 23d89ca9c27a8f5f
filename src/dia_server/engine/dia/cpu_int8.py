"""Products of activations by int8 weights, for CPUs that multiply bytes (AVX-512's VNNI), compiled by Numba.

An instruction of VNNI multiplies 64 pairs of bytes, an unsigned and a signed one, and adds each four products
to one of 16 sums in int32. The weights are stored as w + 128, in the order in which it reads them. An
activation is rounded to 14 bits and multiplied as two signed parts of 7 bits. All sums are exact integers, so
neither their order nor the other rows of a batch matter.
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
from dia_server.engine.dia.linear import LEVELS, PART

LANES, QUAD = 16, 4
"""Outputs of a block, and inputs that an instruction adds up for each."""
AHEAD = 2048
"""Bytes by which weights are fetched into the cache in advance: up to a fifth faster."""
OFFSET = 128
"""Number that is added to each weight, and OFFSET times the sum of a row's part to each of its products."""


def _block_product(typing: Any, weights: Any, parts: Any, quads: Any, sums: Any, count: Any) -> Any:
    """Multiply a block of weights [quads, 16, 4] by `count` parts [count, quads, 4].

    `sums` int32 [count, 16] gets the products. All three are addresses, and `count` is a constant.
    """
    address, number = numba.types.intp, count.literal_value

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        weights, parts, quads, sums, _ = arguments
        word, words = ir.IntType(32), ir.VectorType(ir.IntType(32), LANES)
        name = "llvm.x86.avx512.vpdpbusd.512"
        multiply = cgutils.get_or_insert_function(builder.module, ir.FunctionType(words, [words] * 3), name)
        fetched = [ir.IntType(8).as_pointer(), word, word, word]
        prefetch = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), fetched), "llvm.prefetch.p0"
        )
        to_read, to_keep, as_data = (ir.Constant(word, flag) for flag in (0, 3, 1))
        totals = [cgutils.alloca_once_value(builder, ir.Constant(words, [0] * LANES)) for _ in range(number)]
        with cgutils.for_range(builder, quads) as loop:
            place = builder.add(weights, builder.mul(loop.index, address_of(64)))
            ahead = builder.inttoptr(builder.add(place, address_of(AHEAD)), fetched[0])
            builder.call(prefetch, [ahead, to_read, to_keep, as_data])
            block = builder.load(builder.inttoptr(place, words.as_pointer()), align=64)
            for i, total in enumerate(totals):
                quad = builder.add(builder.mul(quads, address_of(i)), loop.index)
                place = builder.add(parts, builder.mul(quad, address_of(4)))
                part = builder.load(builder.inttoptr(place, word.as_pointer()), align=4)
                part = builder.insert_element(ir.Constant(words, ir.Undefined), part, ir.Constant(word, 0))
                part = builder.shuffle_vector(part, part, ir.Constant(words, [0] * LANES))
                builder.store(builder.call(multiply, [builder.load(total), block, part]), total)
        for i, total in enumerate(totals):
            place = builder.add(sums, address_of(64 * i))
            builder.store(builder.load(total), builder.inttoptr(place, words.as_pointer()), align=4)
        return context.get_dummy_value()

    def address_of(value: int) -> ir.Constant:
        return ir.Constant(ir.IntType(64), value)

    return numba.types.void(address, address, address, address, count), generate


_multiply_block: Any = intrinsic(prefer_literal=True)(_block_product)
"""The function of compiled code whose type and instructions `_block_product` defines."""


@compiled
def multiply(
    first: int, last: int, x: Numbers, weights: NDArray[np.uint8], scale: Numbers, out: Numbers
) -> None:
    """Compute the outputs of the blocks `first` to `last` of `cpu_ops.multiply_bytes`."""
    rows, quads = len(x), weights.shape[1]
    parts = np.zeros((rows, 2, quads * QUAD), np.int8)
    steps, corrections = np.empty(rows, np.float32), np.empty((rows, 2), np.int32)
    for row in range(rows):
        steps[row] = _split(x[row], parts[row], corrections[row])
    sums = np.empty((LANES, LANES), np.int32)
    here = sums.ctypes.data
    for block in range(first, last):
        place, output, begin = weights[block].ctypes.data, block * LANES, 0
        while begin < rows:
            source = parts[begin].ctypes.data
            if rows - begin >= 8:
                count = 8
                _multiply_block(place, source, quads, here, 16)
            elif rows - begin >= 4:
                count = 4
                _multiply_block(place, source, quads, here, 8)
            elif rows - begin >= 2:
                count = 2
                _multiply_block(place, source, quads, here, 4)
            else:
                count = 1
                _multiply_block(place, source, quads, here, 2)
            for i in range(count):
                row = begin + i
                highs, lows = sums[2 * i], sums[2 * i + 1]
                scales, made = scale[output : output + LANES], out[row, output : output + LANES]
                for lane in range(len(made)):
                    high = np.float32(np.int32(highs[lane] - corrections[row, 0]))
                    low = np.float32(np.int32(lows[lane] - corrections[row, 1]))
                    exact = high * np.float32(PART) + low
                    made[lane] = narrow(exact * steps[row] * scales[lane], made)
            begin += count


@compiled
def _split(x: Numbers, parts: Numbers, corrections: Numbers) -> np.float32:
    """Round x [in] to 14 bits, and return the value of one level; NaN if any number of x is not finite.

    `parts` int8 [2, in or more] gets the high and low parts, and `corrections` int32 [2] what OFFSET adds to
    each part's products.
    """
    width = len(x)
    largest, nothing = np.float32(1e-30), np.float32(0)
    for i in range(width):
        largest = max(largest, abs(wide(x[i])))
        nothing += wide(x[i]) * np.float32(0)
    step = largest / np.float32(LEVELS) + nothing
    highs, lows = np.int32(0), np.int32(0)
    for i in range(width):
        whole = wide(x[i]) / step
        high = np.rint(whole * np.float32(1 / PART))
        low = np.rint(whole - high * np.float32(PART))
        parts[0, i], parts[1, i] = np.int8(high), np.int8(low)
        highs += np.int32(high)
        lows += np.int32(low)
    corrections[0], corrections[1] = highs * OFFSET, lows * OFFSET
    return np.float32(step)
