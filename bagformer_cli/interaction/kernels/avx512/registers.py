"""Code generator: dot products of 16 bags × some patches at a time, kept in AVX-512 registers.

README.md in this folder draws the data layout and gives the same loop in C. In short: a *slot* is
one register of 16 lanes, and lane ``l`` belongs to one bag. A *word* is 4 bytes of a vector: one
float32, two bfloat16 or four int8. One step of the loop broadcasts one word of a patch to all lanes
and multiplies it with the same word of 16 bags::

    register            = lane 0       lane 1     …  lane 15
    bags[slot][k]         b0, word k   b1, word k    b15, word k     (loaded, 64 bytes)
    patch word k          p,  word k   p,  word k    p,   word k     (broadcast, 4 bytes)
    sum[slot][row]      + b0 · p       b1 · p        b15 · p         (one instruction)

numba compiles the loops that call this code; what Python cannot say (registers, broadcast, the
multiplying instructions) is written with llvmlite's IR builder. ``builder.add(a, b)`` does not add:
it appends an ``add`` instruction to the function that is being compiled.

Importing numba takes half a second, so this module is imported where it is first needed.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bagformer_cli.interaction.kernels.cpu.centroids import SLOT

FEATURES = {
    "float32": ("avx512f",),
    "bfloat16": ("avx512f", "avx512bf16"),
    "int8": ("avx512f", "avx512bw", "avx512vnni"),
}
"""Processor features that each type needs, by LLVM's names."""

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
INTS = ir.VectorType(I32, SLOT)
FLOATS = ir.VectorType(ir.FloatType(), SLOT)
_MASK = ir.VectorType(ir.IntType(1), SLOT)


def processor_has(name: str) -> bool:
    """Return whether this processor has the instructions for float32, bfloat16 or int8."""
    features = llvmlite.binding.get_host_cpu_features()
    return all(features.get(feature, False) for feature in FEATURES[name])


class RegisterBlock:
    """Appends the code for ``slots`` × ``rows`` registers of dot products to a function.

    Args:
        builder: llvmlite's builder, positioned where the code goes.
        element: numba's type of a stored number; uint16 stands for bfloat16.
        slots: Groups of 16 bags that are multiplied together.
        rows: Patches that are multiplied together. ``slots * rows`` sums, ``slots`` registers of
            bags and one of a patch must fit the 32 registers.
    """

    def __init__(self, builder: Any, element: Any, slots: int, rows: int) -> None:
        self.builder, self.element = builder, element
        self.slots, self.rows = slots, rows
        self.sums = INTS if element is types.int8 else FLOATS
        # A multiplication takes 4 cycles, and two can start per cycle: 8 must be independent. With
        # fewer registers than that, each sum is split into chains that are added at the end.
        self.chains = max(1, min(4, 8 // (slots * rows)))

    def pointer(self, base: Any, offset: Any, kind: Any) -> Any:
        """Return address ``base + offset`` as a pointer to ``kind``."""
        return self.builder.inttoptr(self.builder.add(base, offset), kind.as_pointer())

    def load(self, base: Any, offset: int | Any, kind: Any) -> Any:
        """Load from ``base + offset``; numpy guarantees the alignment of one number only."""
        offset = I64(offset) if isinstance(offset, int) else offset
        load = self.builder.load(self.pointer(base, offset, kind))
        load.align = 2 if kind is I16 else 4
        return load

    def store(self, value: Any, base: Any, offset: int, align: int = 4) -> None:
        """Store at ``base + offset``."""
        self.builder.store(value, self.pointer(base, I64(offset), value.type)).align = align

    def call(self, name: str, result: Any, arguments: list[Any]) -> Any:
        """Call an LLVM intrinsic, which becomes one instruction."""
        kind = ir.FunctionType(result, [value.type for value in arguments])
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, arguments)

    def multiply(self, total: Any, bags: Any, word: Any) -> Any:
        """Return ``total`` plus the products of one word.

        ``word`` is the last operand because the instruction can read and broadcast that one from
        memory itself. VPDPBUSD multiplies unsigned by signed bytes: the bags are the unsigned ones.
        """
        if self.element is types.int8:
            return self.call("llvm.x86.avx512.vpdpbusd.512", INTS, [total, bags, word])
        if self.element is types.uint16:
            return self.call("llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, [total, bags, word])
        bags, word = (self.builder.bitcast(x, FLOATS) for x in (bags, word))
        return self.call("llvm.fma.v16f32", FLOATS, [bags, word, total])

    def prefetch(self, address: Any) -> None:
        """Ask for the cache line at an address, which may lie outside the array."""
        pointer = self.builder.inttoptr(address, I8.as_pointer())
        read, second_level, data = I32(0), I32(2), I32(1)
        self.call("llvm.prefetch.p0", ir.VoidType(), [pointer, read, second_level, data])

    def larger(self, a: Any, b: Any) -> Any:
        """Return the larger number in each lane."""
        if self.sums is INTS:
            return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)
        flags = ("nnan", "nsz")
        greater = self.builder.fcmp_ordered(">", a, b, flags=flags)
        return self.builder.select(greater, a, b, flags=flags)

    def plus(self, a: Any, b: Any) -> Any:
        """Return the sum in each lane."""
        return self.builder.add(a, b) if a.type == INTS else self.builder.fadd(a, b)

    def broadcast(self, word: Any) -> Any:
        """Return a register with ``word`` in all lanes."""
        one = self.builder.insert_element(ir.Constant(INTS, ir.Undefined), word, I32(0))
        zeros = ir.Constant(INTS, [0] * SLOT)
        return self.builder.shuffle_vector(one, ir.Constant(INTS, ir.Undefined), zeros)

    def products(
        self, bags: Any, words: Any, begin: Any, patches: Any, stride: Any, ahead: Any
    ) -> list[Any]:
        """Append the loop over the words of a vector; return the sums as [slots][rows], flat.

        Args:
            bags: Address of the first slot, 64 · ``words`` bytes each.
            words: Words of a vector, a multiple of ``chains``.
            begin: int8: address of the int32 with which the sums of each row begin.
            patches: Address of the first patch.
            stride: Bytes from one patch to the next.
            ahead: Distance in bytes from this patch to the memory that is prefetched.
        """
        b = self.builder
        zero = ir.Constant(self.sums, [0] * SLOT)
        count = self.slots * self.rows
        before = b.block
        loop, after = b.append_basic_block("word"), b.append_basic_block("maxima")
        first = [zero] * self.rows
        if self.sums is INTS:
            first = [self.broadcast(self.load(begin, 4 * p, I32)) for p in range(self.rows)]
        row_offsets = [b.mul(stride, I64(p)) for p in range(self.rows)]
        slot_bytes = b.mul(words, I64(4 * SLOT))
        slot_offsets = [b.mul(slot_bytes, I64(s)) for s in range(self.slots)]
        b.branch(loop)
        b.position_at_end(loop)
        # A phi is a variable of the loop: its value before the first round and after each round.
        k = b.phi(I64)
        k.add_incoming(I64(0), before)
        totals = []
        for chain in range(self.chains):
            for i in range(count):
                total = b.phi(self.sums)
                total.add_incoming(zero if chain else first[i % self.rows], before)
                totals.append(total)
        sums = list(totals)
        for chain in range(self.chains):
            step = b.add(k, I64(chain))
            row_at, slot_at = b.mul(step, I64(4)), b.mul(step, I64(4 * SLOT))
            loaded = [self.load(bags, b.add(slot_at, s), INTS) for s in slot_offsets]
            if self.rows > 1:
                # In each round 4 bytes of every row are used, and as many are requested.
                used = b.mul(step, I64(4 * self.rows))
                self.prefetch(b.add(b.add(patches, ahead), used))
            for p in range(self.rows):
                word = self.broadcast(self.load(patches, b.add(row_at, row_offsets[p]), I32))
                for s in range(self.slots):
                    i = chain * count + s * self.rows + p
                    sums[i] = self.multiply(sums[i], loaded[s], word)
        following = b.add(k, I64(self.chains))
        k.add_incoming(following, loop)
        for total, value in zip(totals, sums, strict=True):
            total.add_incoming(value, loop)
        b.cbranch(b.icmp_signed("<", following, words), loop, after)
        b.position_at_end(after)
        for chain in range(1, self.chains):
            for i in range(count):
                sums[i] = self.plus(sums[i], sums[chain * count + i])
        return sums[:count]

    def maxima_over_patches(self, products: list[Any], best: Any) -> None:
        """Update each slot's 16 maxima at address ``best`` with the products of these rows."""
        for s in range(self.slots):
            highest = self.load(best, 4 * SLOT * s, self.sums)
            for value in products[s * self.rows : (s + 1) * self.rows]:
                highest = self.larger(value, highest)
            self.store(highest, best, 4 * SLOT * s)

    def maxima_over_bags(self, products: list[Any], over: Any, starts: Any, i2t: Any) -> None:
        """Continue each patch's maxima down the slots, and add them up over the patches.

        Lanes are independent: a title lies in one lane, one bag per slot.

        Args:
            products: Sums of :meth:`products`.
            over: Address of [rows][16], each patch's maxima over the bags of earlier slots.
            starts: Address of a bit mask [slots] uint16: lanes in which a title starts, so that
                its maximum starts as well.
            i2t: Address of [slots][16] float32. Gets the sum over patches of the maxima after each
                slot; at a title's last slot that is its score.
        """
        b = self.builder
        start = [b.bitcast(self.load(starts, 2 * s, I16), _MASK) for s in range(self.slots)]
        totals = [self.load(i2t, 4 * SLOT * s, FLOATS) for s in range(self.slots)]
        for p in range(self.rows):
            highest = self.load(over, 4 * SLOT * p, self.sums)
            for s in range(self.slots):
                value = products[s * self.rows + p]
                highest = b.select(start[s], value, self.larger(value, highest))
                number = b.sitofp(highest, FLOATS) if self.sums is INTS else highest
                totals[s] = b.fadd(totals[s], number)
            self.store(highest, over, 4 * SLOT * p)
        for s in range(self.slots):
            self.store(totals[s], i2t, 4 * SLOT * s)


def block_of_maxima(slots: int, rows: int, both: bool) -> Any:
    """Make the numba function that multiplies ``slots`` × ``rows`` and updates the maxima.

    Its arguments are an array of patches, for its type only, the addresses and sizes of
    :meth:`RegisterBlock.products`, the address ``best`` of the maxima over patches and, for
    ``both`` directions, the addresses of :meth:`RegisterBlock.maxima_over_bags`.
    """

    def build(patches: Any, *addresses: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            block = RegisterBlock(builder, patches.dtype, slots, rows)
            products = block.products(*args[1:7])
            block.maxima_over_patches(products, args[7])
            if both:
                block.maxima_over_bags(products, *args[8:])
            return context.get_dummy_value()

        return types.void(patches, *addresses), generate

    # numba reads the number of arguments off a signature, so each direction has one.
    def one_way(_: Any, patches: Any, bags: Any, words: Any, begin: Any, row: Any, stride: Any,
                ahead: Any, best: Any) -> Any:  # fmt: skip
        return build(patches, bags, words, begin, row, stride, ahead, best)

    def both_ways(_: Any, patches: Any, bags: Any, words: Any, begin: Any, row: Any, stride: Any,
                  ahead: Any, best: Any, over: Any, starts: Any, i2t: Any) -> Any:  # fmt: skip
        return build(patches, bags, words, begin, row, stride, ahead, best, over, starts, i2t)

    return intrinsic(both_ways if both else one_way)


def sum_of_bytes(lanes: int) -> Any:
    """Make the numba function ``(address, words) -> int32``: 128 times the sum of the bytes.

    VPDPBUSD with the constant 128 as the unsigned side adds four signed bytes per lane.
    """

    def build(_: Any, row: Any, words: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            block = RegisterBlock(builder, types.int8, 1, 1)
            before = builder.block
            loop, after = builder.append_basic_block("word"), builder.append_basic_block("sum")
            register = ir.VectorType(I32, lanes)
            builder.branch(loop)
            builder.position_at_end(loop)
            k, total = builder.phi(I64), builder.phi(register)
            k.add_incoming(I64(0), before)
            total.add_incoming(ir.Constant(register, [0] * lanes), before)
            value = block.load(args[0], builder.mul(k, I64(4)), register)
            bytes_of_128 = ir.Constant(register, [-0x7F7F7F80] * lanes)  # 0x80808080
            name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
            summed = block.call(name, register, [total, bytes_of_128, value])
            following = builder.add(k, I64(lanes))
            k.add_incoming(following, loop)
            total.add_incoming(summed, loop)
            builder.cbranch(builder.icmp_signed("<", following, args[1]), loop, after)
            builder.position_at_end(after)
            return block.call(f"llvm.vector.reduce.add.v{lanes}i32", I32, [summed])

        return types.int32(row, words), generate

    return intrinsic(build)
