"""Compiled (numba, AVX-512) MaxSim that never writes a dot product to memory.

Sixteen bags lie side by side in the lanes of one register, a *slot*; a number of a patch is
broadcast to all of them. So the vectors of images are read where they lie, in any type and without
being rearranged, and both maxima are taken between registers: over patches lane by lane, over the
bags of a title, which lie in one lane one slot after the other, slot by slot.

Products: fp32 by fused multiply-add, bfloat16 by VDPBF16PS, int8 by VPDPBUSD, the latter two only
where the processor has them (:func:`has`). Sums are float32 or int32 throughout, so int8 is exact.

Imported where first needed, like ``_kernels``. Shapes: H slots of 16 lanes, Q titles, n images,
R patches, D dimensions; a *word* is the 4 bytes that one step multiplies: W of them in a vector.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bagformer_cli.compiled import compile_loop
from bagformer_cli.interaction.kernels.blocks import LANES

AHEAD = 64  # vectors of images are fetched so many before they are multiplied

_FEATURES = {
    "float32": ("avx512f",),
    "bfloat16": ("avx512f", "avx512bf16"),
    "int8": ("avx512f", "avx512bw", "avx512vnni"),
}
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_INTS = ir.VectorType(_I32, LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)


def has(name: str) -> bool:
    """Whether this processor multiplies ``"float32"``, ``"bfloat16"`` or ``"int8"`` this way."""
    features = llvmlite.binding.get_host_cpu_features()
    return all(features.get(feature, False) for feature in _FEATURES[name])


class _Block:
    """Writes the code for ``slots`` × ``rows`` registers of dot products, and their maxima."""

    def __init__(self, builder: Any, element: Any, slots: int, rows: int) -> None:
        self.builder, self.element = builder, element
        self.slots, self.rows = slots, rows
        self.sums = _INTS if element is types.int8 else _FLOATS
        # Too few registers wait for each other's results: split the sum into independent chains.
        self.chains = max(1, min(4, 8 // (slots * rows)))

    def at(self, base: Any, offset: Any, kind: Any) -> Any:
        address = self.builder.add(base, offset)
        return self.builder.inttoptr(address, kind.as_pointer())

    def load(self, base: Any, offset: int | Any, kind: Any) -> Any:
        offset = ir.Constant(_I64, offset) if isinstance(offset, int) else offset
        load = self.builder.load(self.at(base, offset, kind))
        load.align = 4 if kind in (_I32, _INTS, _FLOATS) else 2
        return load

    def store(self, value: Any, base: Any, offset: int) -> None:
        pointer = self.at(base, ir.Constant(_I64, offset), value.type)
        self.builder.store(value, pointer).align = 4

    def call(self, name: str, result: Any, arguments: list[Any]) -> Any:
        kind = ir.FunctionType(result, [value.type for value in arguments])
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, arguments)

    def multiply(self, total: Any, bags: Any, word: Any) -> Any:
        """``total`` and the products of a step; of int8 the bags' bytes are the unsigned ones.

        The word comes last: there the processor takes it out of memory and broadcasts it for free.
        """
        if self.element is types.int8:
            return self.call("llvm.x86.avx512.vpdpbusd.512", _INTS, [total, bags, word])
        if self.element is types.uint16:
            return self.call("llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, [total, bags, word])
        bags, word = (self.builder.bitcast(x, _FLOATS) for x in (bags, word))
        return self.call("llvm.fma.v16f32", _FLOATS, [bags, word, total])

    def prefetch(self, address: Any) -> None:
        pointer = self.builder.inttoptr(address, _I8.as_pointer())
        read, second_level, data = _I32(0), _I32(2), _I32(1)
        self.call("llvm.prefetch.p0", ir.VoidType(), [pointer, read, second_level, data])

    def larger(self, a: Any, b: Any) -> Any:
        if self.sums is _INTS:
            return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)
        flags = ("nnan", "nsz")
        greater = self.builder.fcmp_ordered(">", a, b, flags=flags)
        return self.builder.select(greater, a, b, flags=flags)

    def plus(self, a: Any, b: Any) -> Any:
        return self.builder.add(a, b) if a.type == _INTS else self.builder.fadd(a, b)

    def splat(self, word: Any) -> Any:
        one = self.builder.insert_element(ir.Constant(_INTS, ir.Undefined), word, _I32(0))
        zeros = ir.Constant(_INTS, [0] * LANES)
        return self.builder.shuffle_vector(one, ir.Constant(_INTS, ir.Undefined), zeros)

    def products(
        self, bags: Any, words: Any, begin: Any, patches: Any, stride: Any, ahead: Any
    ) -> list[Any]:
        """[slots][rows] registers: a loop over the words of the vectors.

        Sums of int8 begin with what is at ``begin``, a number a row. What lies ``ahead`` bytes
        behind what is multiplied is fetched.
        """
        b = self.builder
        zero = ir.Constant(self.sums, [0] * LANES)
        count = self.slots * self.rows
        before = b.block
        loop, after = b.append_basic_block("word"), b.append_basic_block("maxima")
        first = [zero] * self.rows
        if self.sums is _INTS:
            first = [self.splat(self.load(begin, 4 * p, _I32)) for p in range(self.rows)]
        rows = [b.mul(stride, ir.Constant(_I64, p)) for p in range(self.rows)]
        slot = b.mul(words, ir.Constant(_I64, 64))
        slots = [b.mul(slot, ir.Constant(_I64, s)) for s in range(self.slots)]
        b.branch(loop)
        b.position_at_end(loop)
        k = b.phi(_I64)
        k.add_incoming(ir.Constant(_I64, 0), before)
        totals = []
        for chain in range(self.chains):
            for i in range(count):
                total = b.phi(self.sums)
                total.add_incoming(zero if chain else first[i % self.rows], before)
                totals.append(total)
        sums = list(totals)
        for chain in range(self.chains):
            step = b.add(k, ir.Constant(_I64, chain))
            row, column = b.mul(step, ir.Constant(_I64, 4)), b.mul(step, ir.Constant(_I64, 64))
            wide = [self.load(bags, b.add(column, s), _INTS) for s in slots]
            if self.rows > 1:  # as fast as it is read: what comes next is on its way by then
                read = b.mul(step, ir.Constant(_I64, 4 * self.rows))
                self.prefetch(b.add(b.add(patches, ahead), read))
            for p in range(self.rows):
                word = self.splat(self.load(patches, b.add(row, rows[p]), _I32))
                for s in range(self.slots):
                    i = chain * count + s * self.rows + p
                    sums[i] = self.multiply(sums[i], wide[s], word)
        following = b.add(k, ir.Constant(_I64, self.chains))
        k.add_incoming(following, loop)
        for total, value in zip(totals, sums, strict=True):
            total.add_incoming(value, loop)
        b.cbranch(b.icmp_signed("<", following, words), loop, after)
        b.position_at_end(after)
        for chain in range(1, self.chains):
            for i in range(count):
                sums[i] = self.plus(sums[i], sums[chain * count + i])
        return [sums[s * self.rows : (s + 1) * self.rows] for s in range(self.slots)]

    def reduce(self, products: list[Any], best: Any) -> None:
        """Over patches: each slot's maxima go on in memory."""
        for s in range(self.slots):
            highest = self.load(best, 64 * s, self.sums)
            for value in products[s]:
                highest = self.larger(value, highest)
            self.store(highest, best, 64 * s)

    def reduce_up(self, products: list[Any], over: Any, begins: Any, ups: Any) -> None:
        """Over bags: each patch's maxima go on, from nothing where a title begins; and are summed.

        ``ups`` [slots][16] gets the sum over patches of the maxima as they are after each slot.
        """
        b = self.builder
        begin = [b.bitcast(self.load(begins, 2 * s, _I16), _MASK) for s in range(self.slots)]
        up = [self.load(ups, 64 * s, _FLOATS) for s in range(self.slots)]
        for p in range(self.rows):
            highest = self.load(over, 64 * p, self.sums)
            for s in range(self.slots):
                value = products[s][p]
                highest = b.select(begin[s], value, self.larger(value, highest))
                as_float = b.sitofp(highest, _FLOATS) if self.sums is _INTS else highest
                up[s] = b.fadd(up[s], as_float)
            self.store(highest, over, 64 * p)
        for s in range(self.slots):
            self.store(up[s], ups, 64 * s)


def _block(slots: int, rows: int, both: bool) -> Any:
    """``(patches array, address of: bags, …) -> None`` for so many slots and rows."""

    def build(_: Any, element: Any, *arguments: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            block = _Block(builder, element.dtype, slots, rows)
            _, bags, words, begin, patches, stride, ahead, best, *rest = args
            products = block.products(bags, words, begin, patches, stride, ahead)
            block.reduce(products, best)
            if both:
                block.reduce_up(products, *rest)
            return context.get_dummy_value()

        return types.void(element, *arguments), generate

    # numba reads the names of the arguments, so there is one function for each list of them.
    def down(_: Any, element: Any, bags: Any, words: Any, begin: Any, patches: Any, stride: Any,
             ahead: Any, best: Any) -> Any:  # fmt: skip
        return build(_, element, bags, words, begin, patches, stride, ahead, best)

    def up(_: Any, element: Any, bags: Any, words: Any, begin: Any, patches: Any, stride: Any,
           ahead: Any, best: Any, over: Any, begins: Any, ups: Any) -> Any:  # fmt: skip
        return build(
            _, element, bags, words, begin, patches, stride, ahead, best, over, begins, ups
        )

    return intrinsic(up if both else down)


def _build_sum(lanes: int) -> Any:
    """``(address, words) -> int``: 128 times the sum of the bytes of so many words."""

    def build(_: Any, row: Any, words: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            block = _Block(builder, types.int8, 1, 1)
            before = builder.block
            loop, after = builder.append_basic_block("some"), builder.append_basic_block("sum")
            some = ir.VectorType(_I32, lanes)
            builder.branch(loop)
            builder.position_at_end(loop)
            k, total = builder.phi(_I64), builder.phi(some)
            k.add_incoming(_I64(0), before)
            total.add_incoming(ir.Constant(some, [0] * lanes), before)
            value = block.load(args[0], builder.mul(k, _I64(4)), some)
            value.align = 4
            high = ir.Constant(some, [-0x7F7F7F80] * lanes)  # the bytes 128, unsigned
            name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
            summed = block.call(name, some, [total, high, value])
            following = builder.add(k, _I64(lanes))
            k.add_incoming(following, loop)
            total.add_incoming(summed, loop)
            builder.cbranch(builder.icmp_signed("<", following, args[1]), loop, after)
            builder.position_at_end(after)
            return block.call(f"llvm.vector.reduce.add.v{lanes}i32", _I32, [summed])

        return types.int32(row, words), generate

    return build


_sum_4: Any = intrinsic(_build_sum(4))
_sum_16: Any = intrinsic(_build_sum(16))
_down_3x8: Any = _block(3, 8, False)
_down_3x1: Any = _block(3, 1, False)
_down_2x8: Any = _block(2, 8, False)
_down_2x1: Any = _block(2, 1, False)
_down_1x16: Any = _block(1, 16, False)
_down_1x1: Any = _block(1, 1, False)
_both_3x8: Any = _block(3, 8, True)
_both_3x1: Any = _block(3, 1, True)
_both_2x8: Any = _block(2, 8, True)
_both_2x1: Any = _block(2, 1, True)
_both_1x16: Any = _block(1, 16, True)
_both_1x1: Any = _block(1, 1, True)


def _score(
    patches: Any, images: Any, chosen: Any, bags: Any, begins: Any, places: Any,
    titles: Any, title_scale: Any, image_scale: Any, t2i: Any, i2t: Any, offsets: Any, best: Any,
    over: Any, ups: Any,
) -> None:  # fmt: skip
    """Both directions of some images: ``t2i`` [Q, n] and, where not empty, ``i2t`` [n, Q].

    ``patches`` [R, D] and ``images`` [N+1] say what the images own; ``chosen`` [n] are the numbers
    of those that are scored (empty: all N). ``bags`` [H, W, 16] words, of int8 128 larger each;
    ``begins`` [H] bits of the lanes in which a title begins; ``places`` [G] where each bag lies,
    slot · 16 + lane; ``titles`` [Q+1]. Scratch: ``offsets`` [longest image] (int8 alone),
    ``best`` and ``ups`` [H, 16], ``over`` [longest image, 16].
    """
    both = i2t.shape[0] > 0
    slots, words = np.int64(bags.shape[0]), np.int64(bags.shape[1])
    stride = np.int64(4) * words
    slot = np.int64(16) * stride
    base, a_offsets = np.int64(patches.ctypes.data), np.int64(offsets.ctypes.data)
    a_bags = np.int64(bags.ctypes.data)
    a_begins, a_best = np.int64(begins.ctypes.data), np.int64(best.ctypes.data)
    a_over, a_ups = np.int64(over.ctypes.data), np.int64(ups.ctypes.data)
    integers = len(offsets) > 0
    ahead = np.int64(AHEAD) * stride
    listed = len(chosen) > 0
    for n in range(len(chosen) if listed else len(images) - 1):
        i = np.int64(chosen[n]) if listed else np.int64(n)
        if listed:  # the next one that is wanted, wherever it lies
            following = np.int64(chosen[min(n + 1, len(chosen) - 1)])
            ahead = np.int64(images[following] - images[i]) * stride
        length = np.int64(images[i + 1] - images[i])
        if length == 0:
            t2i[:, n] = 0
            if both:
                i2t[n] = 0
            continue
        best[:] = _LOWEST if integers else -np.inf
        at = base + np.int64(images[i]) * stride
        if integers:
            for r in range(length):
                if words % 16 == 0:
                    offsets[r] = -_sum_16(at + r * stride, words)
                else:
                    offsets[r] = -_sum_4(at + r * stride, words)
        if both:
            ups[:] = 0
        s = np.int64(0)
        while s < slots:
            b, mx = a_bags + s * slot, a_best + s * 64
            bg, up = a_begins + s * 2, a_ups + s * 64
            left = slots - s
            # Two and two are quicker than three and one.
            wide = np.int64(3 if left == 3 or left > 4 else 2 if left > 1 else 1)
            rows = np.int64(16 if wide == 1 else 8)
            p = np.int64(0)
            while p < length:
                row, ov, st = at + p * stride, a_over + p * 64, a_offsets + p * 4
                if p + rows <= length:
                    if both:
                        if wide == 3:
                            _both_3x8(patches, b, words, st, row, stride, ahead, mx, ov, bg, up)
                        elif wide == 2:
                            _both_2x8(patches, b, words, st, row, stride, ahead, mx, ov, bg, up)
                        else:
                            _both_1x16(patches, b, words, st, row, stride, ahead, mx, ov, bg, up)
                    else:
                        if wide == 3:
                            _down_3x8(patches, b, words, st, row, stride, ahead, mx)
                        elif wide == 2:
                            _down_2x8(patches, b, words, st, row, stride, ahead, mx)
                        else:
                            _down_1x16(patches, b, words, st, row, stride, ahead, mx)
                    p += rows
                else:
                    if both:
                        if wide == 3:
                            _both_3x1(patches, b, words, st, row, stride, ahead, mx, ov, bg, up)
                        elif wide == 2:
                            _both_2x1(patches, b, words, st, row, stride, ahead, mx, ov, bg, up)
                        else:
                            _both_1x1(patches, b, words, st, row, stride, ahead, mx, ov, bg, up)
                    else:
                        if wide == 3:
                            _down_3x1(patches, b, words, st, row, stride, ahead, mx)
                        elif wide == 2:
                            _down_2x1(patches, b, words, st, row, stride, ahead, mx)
                        else:
                            _down_1x1(patches, b, words, st, row, stride, ahead, mx)
                    p += np.int64(1)
            s += wide
        for q in range(len(titles) - 1):
            scale = title_scale[q] * image_scale[i]
            total = np.float32(0)
            for g in range(titles[q], titles[q + 1]):
                total += np.float32(best[places[g]])
            t2i[q, n] = total * scale
            if both:
                last = titles[q + 1] - 1
                i2t[n, q] = ups[places[last]] * scale if last >= titles[q] else np.float32(0)


def _arrange(titles: Any, order: Any, load: Any, places: Any, begins: Any) -> None:
    """Puts each title's bags into one lane, one slot after the other; the next into the emptiest.

    ``order`` [Q] says in which order, the longest first; ``load`` [16] zeros, then how many bags
    each lane got; ``places`` [G] and ``begins`` as in :func:`_score`, ``begins`` zeroed and long
    enough.
    """
    for q in order:
        lane = np.int64(0)
        for other in range(1, LANES):
            if load[other] < load[lane]:
                lane = np.int64(other)
        if titles[q + 1] > titles[q]:
            begins[load[lane]] |= np.uint16(1 << lane)
        for g in range(titles[q], titles[q + 1]):
            places[g] = load[lane] * LANES + lane
            load[lane] += 1


_LOWEST = -(1 << 31)

score = compile_loop(_score)
arrange = compile_loop(_arrange)
