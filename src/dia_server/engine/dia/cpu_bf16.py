"""Products of activations by weights, both in bf16, for CPUs with AVX-512's bf16 instructions, by Numba.

An instruction multiplies 32 pairs of numbers and adds each two products to one of 16 sums in fp32. Weights
are stored in the order in which it reads them. A row's products are added in one order, so the other rows of
a batch do not matter.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

# Numba's cache does not notice when these change: then delete __pycache__
from dia_server.engine.dia.cpu_kernels import compiled, narrow
from dia_server.engine.dia.cpu_vectors import (
    LANES,
    ROWS_AT_ONCE,
    SINGLES,
    VECTOR,
    WORDS,
    Vectors,
    rows_at_once,
)

PAIR = 2
"""Inputs that an instruction adds up for each output."""
TURN = 16
"""Inputs that a turn of the loop multiplies."""


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bf16, which llvmlite does not have."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


BFLOATS = ir.VectorType(_BFloat(), 2 * LANES)


def _block_product(typing: Any, weights: Any, x: Any, turns: Any, sums: Any, rows: Any) -> Any:
    """Multiply a block of weights [turns, 8, 16, 2] by x [rows, turns, 16]; `sums` fp32 [rows, 16] gets the
    products.

    All three are addresses; `rows` is one of ROWS_AT_ONCE.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        weights, x, turns, sums, rows = arguments
        vectors = Vectors(builder)

        def write(count: int) -> None:
            totals = vectors.sums(count)
            with cgutils.for_range(builder, turns) as loop:
                here = vectors.of_rows(turns, loop.index, count)
                for pair in range(TURN // PAIR):
                    place = vectors.address(weights, loop.index, TURN * LANES * 2, pair * VECTOR)
                    block = vectors.load_weights(place, BFLOATS, count)
                    for total, turn in zip(totals, here, strict=True):
                        two = vectors.broadcast(vectors.address(x, turn, TURN * 2, pair * PAIR * 2), WORDS)
                        values = builder.load(total), block, builder.bitcast(two, BFLOATS)
                        added = vectors.call("llvm.x86.avx512bf16.dpbf16ps.512", SINGLES, *values)
                        builder.store(added, total)
            vectors.store_sums(totals, sums)

        vectors.for_rows(rows, write)
        return context.get_dummy_value()

    return numba.types.void(*[numba.types.intp] * 5), generate


_multiply_block: Any = intrinsic(_block_product)
"""The function of compiled code whose type and instructions `_block_product` defines."""


@compiled
def multiply(
    first: int, last: int, x: NDArray[np.uint16], weights: NDArray[np.uint16], out: NDArray[np.uint16]
) -> None:
    """Compute the outputs of the blocks `first` to `last` of `cpu_ops.multiply_bf16`."""
    rows, turns = len(x), weights.shape[1] * PAIR // TURN
    sums = np.empty((ROWS_AT_ONCE[0], LANES), np.float32)
    here = sums.ctypes.data
    for block in range(first, last):
        place, output, begin = weights[block].ctypes.data, block * LANES, 0
        while begin < rows:
            count = rows_at_once(rows - begin)
            _multiply_block(place, x[begin].ctypes.data, turns, here, count)
            for i in range(count):
                made = out[begin + i, output : output + LANES]
                for lane in range(len(made)):
                    made[lane] = narrow(sums[i, lane], made)
            begin += count
