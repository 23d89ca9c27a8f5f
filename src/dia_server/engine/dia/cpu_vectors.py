"""Instructions of AVX-512, and of what followed it, for loops of products that Numba compiles."""

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils

# Numba's cache does not notice when these change: then delete __pycache__
from dia_server.engine.dia.cpu_kernels import compiled

BYTE, WORD, INDEX, SINGLE = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
LANES = 16
"""Numbers of 32 bits in a vector, and outputs of a block of weights."""
WORDS, SINGLES = ir.VectorType(WORD, LANES), ir.VectorType(SINGLE, LANES)
VECTOR = 4 * LANES
"""Bytes of a vector."""
ROWS_AT_ONCE = (8, 4, 2, 1)
"""Numbers of rows for which there is a loop. More rows would take more registers than there are."""
AHEAD, AHEAD_A_ROW = 3 << 10, 2 << 10
"""Bytes by which weights are fetched into the L2 cache in advance: at least, and per row from four rows on.

Without it, or into L1, a core waits for memory and computes in turn: 1.5 times as long for 8 rows.
"""
_TO_READ, _INTO_L2, _AS_DATA = (ir.Constant(WORD, flag) for flag in (0, 2, 1))


@compiled
def rows_at_once(left: int) -> int:
    """Return how many of the `left` rows to multiply by a block of weights at once."""
    for count in ROWS_AT_ONCE:
        if count <= left:
            return count
    return 0


class Vectors:
    """Writes instructions with `builder`. Addresses and indices are values of 64 bits."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def for_rows(self, rows: ir.Value, write: Callable[[int], None]) -> None:
        """Call `write` for each of ROWS_AT_ONCE; what it writes runs if there are as many `rows`."""
        for count in ROWS_AT_ONCE:
            with self.builder.if_then(self.builder.icmp_signed("==", rows, ir.Constant(INDEX, count))):
                write(count)

    def address(self, base: ir.Value, index: ir.Value, size: int, offset: int = 0) -> ir.Value:
        """Return base + index * size + offset."""
        moved = self.builder.add(base, self.builder.mul(index, ir.Constant(INDEX, size)))
        return self.builder.add(moved, ir.Constant(INDEX, offset))

    def of_rows(self, parts: ir.Value, part: ir.Value, rows: int) -> list[ir.Value]:
        """Return the index of `part` in an array [rows, parts], for each row."""
        firsts = [self.builder.mul(parts, ir.Constant(INDEX, row)) for row in range(rows)]
        return [self.builder.add(first, part) for first in firsts]

    def load_weights(self, address: ir.Value, kind: ir.VectorType, rows: int) -> ir.Value:
        """Read 64 bytes of a weight, aligned to 64, and fetch those that will be read after them."""
        ahead = self.builder.add(address, ir.Constant(INDEX, AHEAD if rows < 4 else rows * AHEAD_A_ROW))
        pointer = self.builder.inttoptr(ahead, BYTE.as_pointer())
        self.call("llvm.prefetch.p0", ir.VoidType(), pointer, _TO_READ, _INTO_L2, _AS_DATA)
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=VECTOR)

    def broadcast(self, address: ir.Value, kind: ir.VectorType) -> ir.Value:
        """Return a vector that holds the 32 bits at `address`, which is a multiple of 4, in each lane."""
        value = self.builder.load(self.builder.inttoptr(address, kind.element.as_pointer()), align=4)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(WORD, 0))
        return self.builder.shuffle_vector(first, first, ir.Constant(WORDS, [0] * LANES))

    def call(self, name: str, result: ir.Type, *operands: ir.Value) -> ir.Value:
        """Call one of LLVM's intrinsic functions."""
        kind = ir.FunctionType(result, [operand.type for operand in operands])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), operands)

    def sums(self, rows: int) -> list[ir.Value]:
        """Return the places of a vector of fp32 for each row, filled with zeros."""
        zero = ir.Constant(SINGLES, [0.0] * LANES)
        return [cgutils.alloca_once_value(self.builder, zero) for _ in range(rows)]

    def store_sums(self, sums: list[ir.Value], address: ir.Value) -> None:
        """Write the `sums` of all rows to fp32 [rows, 16] at `address`."""
        for row, place in enumerate(sums):
            pointer = self.builder.inttoptr(
                self.builder.add(address, ir.Constant(INDEX, row * VECTOR)), SINGLES.as_pointer()
            )
            self.builder.store(self.builder.load(place), pointer, align=4)
