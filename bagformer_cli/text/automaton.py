"""A set of words as three flat arrays: built with numpy, memory-mapped, walked by the kernels.

Nodes are numbered level by level, the children of a node side by side and in order of their
character; so a node needs only the number of its first child, and a child is found by bisection
(from the root: by a direct table). No pickle, nothing to unpack: opening is mapping a file.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import gt
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bagformer_cli.text.characters import CODE_POINTS, codes_of

Array = MutableSequence[int]
"""What the kernels see: a numpy array, or a list of their own."""


def child(node: int, character: int, first: Array, label: Array, roots: Array) -> int:
    """The node after ``node`` by ``character``; 0 where there is none."""
    if node == 0:
        return roots[character]
    low = first[node]
    end = first[node + 1]
    high = end
    while low < high:
        middle = (low + high) >> 1
        if label[middle] < character:
            low = middle + 1
        else:
            high = middle
    if low < end and label[low] == character:
        return low
    return 0


@dataclass(frozen=True)
class Trie:
    """Words over code points.

    Args:
        label: [nodes] uint32, the character that leads to a node (node 0, the root, has none).
        first: [nodes + 1] int32, the number of a node's first child.
        value: [nodes] int32, the index of the word that ends here, -1 where none does.
        roots: [0x110000] int32, the child of the root by character, 0 where there is none.
    """

    label: npt.NDArray[np.uint32]
    first: npt.NDArray[np.int32]
    value: npt.NDArray[np.int32]
    roots: npt.NDArray[np.int32]

    @staticmethod
    def build(words: Sequence[str]) -> Trie:
        """Make the trie of distinct, non-empty words; a word's value is its index in ``words``."""
        order = np.arange(len(words))
        if any(map(gt, words, islice(words, 1, None))):
            order = np.array(sorted(range(len(words)), key=words.__getitem__), np.int64)
        codes, offsets = codes_of(words)
        starts, lengths = offsets[:-1][order], np.diff(offsets)[order]
        labels, children, values = [np.zeros(1, np.uint32)], [], [np.full(1, -1, np.int32)]
        parents = np.zeros(len(words), np.int64)  # of each word still growing, within its level
        width, depth = 1, 0
        while len(order):
            character = codes[starts + depth]
            new = np.ones(len(order), bool)
            new[1:] = (character[1:] != character[:-1]) | (parents[1:] != parents[:-1])
            nodes = np.cumsum(new) - 1
            children.append(np.bincount(parents[new], minlength=width))
            width, depth = int(nodes[-1]) + 1, depth + 1
            labels.append(character[new])
            value = np.full(width, -1, np.int32)
            ends = lengths == depth
            value[nodes[ends]] = order[ends]
            values.append(value)
            order, starts, lengths, parents = (
                array[~ends] for array in (order, starts, lengths, nodes)
            )
        children.append(np.zeros(width, np.int64))
        counts = np.concatenate(children)
        first = np.concatenate([[1], 1 + np.cumsum(counts)]).astype(np.int32)
        return Trie.of(np.concatenate(labels), first, np.concatenate(values))

    @staticmethod
    def of(
        label: npt.NDArray[np.uint32], first: npt.NDArray[np.int32], value: npt.NDArray[np.int32]
    ) -> Trie:
        """The trie over these arrays, with the root's direct table made from them."""
        roots = np.zeros(CODE_POINTS, np.int32)
        children = np.arange(first[0], first[1], dtype=np.int32)
        roots[label[children]] = children
        return Trie(label, first, value, roots)

    @staticmethod
    def open(folder: Path) -> Trie:
        """Map the arrays that :meth:`save` wrote."""
        label, first, value = (
            np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in ("label", "first", "value")
        )
        return Trie.of(label, first, value)

    def save(self, folder: Path) -> None:
        """Write the arrays into ``folder``."""
        for name in ("label", "first", "value"):
            np.save(folder / f"{name}.npy", getattr(self, name))

    def find(self, word: str) -> int:
        """The node that ``word`` leads to, 0 where no word begins so."""
        node = 0
        for character in word:
            node = self._child(node, ord(character))
            if not node:
                break
        return node

    def prefixes(self, text: str, start: int) -> Iterator[int]:
        """Where the words end that begin at ``start`` in ``text``, the shortest first."""
        node = 0
        for at in range(start, len(text)):
            node = self._child(node, ord(text[at]))
            if not node:
                return
            if self.value[node] >= 0:
                yield at + 1

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and bool(word) and self.value[self.find(word)] >= 0

    def _child(self, node: int, character: int) -> int:
        return int(child(node, character, self.first, self.label, self.roots))  # type: ignore[arg-type]
