"""An Aho-Corasick automaton over code points, kept as flat arrays.

It finds every entry of a lexicon in one pass over a title, whatever the number of entries
(Aho and Corasick, Efficient string matching, CACM 18(6), 1975). For the entries 红色, 色裙, 裙:

    goto      0 ─红─▶ 1 ─色─▶ 4*       a tree of all entries; * marks a node that ends one
              ├─色─▶ 2 ─裙─▶ 5*
              └─裙─▶ 3*
    failure   4 ┄▶ 2, 5 ┄▶ 3           from a node to the longest proper suffix of its string that
                                       is a node too (to the root 0 where no other is)
    output    5 ┄▶ 3                   from a node to the nearest node on its chain of failure
                                       links that ends an entry (0: no node does)

Reading 红色裙: 红 leads from 0 to 1 and 色 to 4, where 红色 ends. Node 4 has no child by 裙; its
failure link leads to 2, which stands for the last character 色, and 2 has one: node 5, where 色裙
ends, and by its output link 裙. Nothing is read twice.

:class:`PrefixTree` holds the goto function alone. Its nodes are numbered level by level, and the
children of a node lie side by side in order of their character, so that a node only needs the
number of its first child and a child is found by bisection:

    node      0    1    2    3    4    5
    label     -    红   色   裙   色   裙     the character that leads to the node
    first     1    4    5    6    6    6   6  children of node n: first[n] … first[n + 1] - 1
    value    -1   -1   -1    2    0    1     the entry that ends here (its index), -1: none

:class:`Automaton` has the same nodes with their links. It finds a child in a hash table instead: a
node of one character has up to 1,200 children, and bisection takes twice as long for a title.

The arrays are files that are mapped into memory: opening a dictionary of 342,729 entries takes
milliseconds and unpickles nothing. They are built with numpy. pyahocorasick, with which the tests
and `xmr bench titles` compare, cannot supply them: its ``dump()`` cuts edge labels to 8 bits and
node ids to 32, and never frees the 150 MB that it returns for this dictionary (version 2.3.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from operator import gt
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bagformer_cli.opening import load_array
from bagformer_cli.text.characters import CODE_POINTS, codes_of

Array: TypeAlias = Any
"""The type of an array inside a kernel: a numpy array of any integer type, or a list of int."""

LONGEST = 255
"""Characters of a word of an automaton at most: depths are kept in one byte."""

CODE_POINT_BITS = 21
"""An edge has the key ``node << 21 | character``; no code point needs more bits."""

TREE_FILES = {"label": np.uint32, "first": np.int32, "value": np.int32}
AUTOMATON_FILES = {
    "edges": np.int64,
    "children": np.int32,
    "initials": np.uint32,
    "value": np.int32,
    "depth": np.uint8,
    "failure": np.int32,
    "output": np.int32,
}
"""The arrays that are stored, and their types."""

NODE_FACTOR, CHARACTER_FACTOR, HASH_SHIFT = 0x9E3779B1, 0x85EBCA77, 15
"""Constants of the hash. Products stay below 2^63, for outside numba an overflow is an error."""


class PrefixTree(NamedTuple):
    """A tree of words over code points.

    Args:
        label: [nodes] uint32, the character that leads to a node (0 at the root, node 0).
        first: [nodes + 1] int32, the number of a node's first child.
        value: [nodes] int32, the index of the word that ends at a node, -1: none does.
        roots: [0x110000] int32, the child of the root by character, 0: no child.
    """

    label: npt.NDArray[np.uint32]
    first: npt.NDArray[np.int32]
    value: npt.NDArray[np.int32]
    roots: npt.NDArray[np.int32]

    @staticmethod
    def build(words: Sequence[str]) -> PrefixTree:
        """Make the tree of distinct, non-empty words; a word's value is its index in ``words``.

        >>> tree = PrefixTree.build(["红色", "裙"])
        >>> int(tree.value[tree.find("裙")]), tree.find("蓝")
        (1, 0)
        """
        order = np.arange(len(words))
        if any(map(gt, words, islice(words, 1, None))):
            order = np.array(sorted(range(len(words)), key=words.__getitem__), np.int64)
        codes, offsets = codes_of(words)
        starts, lengths = offsets[:-1][order], np.diff(offsets)[order]
        labels, children, values = [np.zeros(1, np.uint32)], [], [np.full(1, -1, np.int32)]
        # One round makes one level. The words are sorted, so those that share a node are
        # neighbours: a new node begins where the character or the parent differs from the word
        # before. ``parents`` has the number of each word's node in the level above, from 0.
        parents = np.zeros(len(words), np.int64)
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
        first = 1 + np.concatenate([[0], np.cumsum(np.concatenate(children))])
        return PrefixTree.of(np.concatenate(labels), first.astype(np.int32), np.concatenate(values))

    @staticmethod
    def of(
        label: npt.NDArray[np.uint32], first: npt.NDArray[np.int32], value: npt.NDArray[np.int32]
    ) -> PrefixTree:
        """Add the table of the root's children to the other arrays."""
        return PrefixTree(label, first, value, _roots(label[first[0] : first[1]]))

    @staticmethod
    def open(folder: Path) -> PrefixTree:
        """Map the arrays that :meth:`save` wrote."""
        return PrefixTree.of(*_open(folder, TREE_FILES))

    def save(self, folder: Path) -> None:
        """Write the arrays into ``folder`` (``roots`` follows from the others)."""
        _save(folder, label=self.label, first=self.first, value=self.value)

    def find(self, word: str) -> int:
        """Return the node that ``word`` leads to, 0 if no word of the tree begins with it."""
        node = 0
        for character in word:
            node = int(child(node, ord(character), self.label, self.first, self.roots))
            if not node:
                break
        return node


class Automaton(NamedTuple):
    """The automaton of Aho and Corasick, with the nodes of the :class:`PrefixTree` of its words.

    Args:
        edges: [2^b] int64, hash table of the edges that do not begin at the root, by open
            addressing: ``node << 21 | character``, 0: a free slot.
        children: [2^b] int32, the node that the edge in a slot leads to.
        roots: [0x110000] int32, the child of the root by character, 0: no child.
        initials: [r] uint32, the characters of nodes 1 to r, the children of the root.
        value: [nodes] int32, the index of the word that ends at a node, -1: none does.
        depth: [nodes] uint8, the length of a node's string.
        failure: [nodes] int32, the node of the longest proper suffix of a node's string.
        output: [nodes] int32, the node of the longest proper suffix that is a word, 0: none is.
    """

    edges: npt.NDArray[np.int64]
    children: npt.NDArray[np.int32]
    roots: npt.NDArray[np.int32]
    initials: npt.NDArray[np.uint32]
    value: npt.NDArray[np.int32]
    depth: npt.NDArray[np.uint8]
    failure: npt.NDArray[np.int32]
    output: npt.NDArray[np.int32]

    @staticmethod
    def build(words: Sequence[str]) -> Automaton:
        """Make the automaton of distinct words of 1 to 255 characters.

        >>> automaton = Automaton.build(["红色", "色裙", "裙"])
        >>> automaton.failure.tolist(), automaton.output.tolist()
        ([0, 0, 0, 0, 2, 3], [0, 0, 0, 0, 0, 3])
        """
        tree = PrefixTree.build(words)
        nodes = len(tree.label)
        parent = np.zeros(nodes, np.int64)
        parent[1:] = np.repeat(np.arange(nodes), np.diff(tree.first))
        # Node k + 1 is the end of the edge keys[k]. Parents and characters ascend, so the keys are
        # sorted, and the edges of a whole level are found by one call of searchsorted.
        keys = (parent[1:] << CODE_POINT_BITS) | tree.label[1:]
        depth = np.zeros(nodes, np.uint8)
        failure, output = np.zeros((2, nodes), np.int32)
        begin, end, level = 1, int(tree.first[1]), 1
        while begin < end:
            if level > LONGEST:
                raise ValueError(f"a word of an automaton has more than {LONGEST} characters")
            depth[begin:end] = level
            # The link of a node by character c leads to the child by c of the first node on its
            # parent's chain of failure links that has one. All those lie in the levels above. The
            # children of the root have no shorter suffix: their links stay 0.
            node = np.arange(begin, end) if level > 1 else np.zeros(0, np.int64)
            state = failure[parent[node]].astype(np.int64)
            while len(node):
                edge = (state << CODE_POINT_BITS) | tree.label[node]
                at = np.minimum(np.searchsorted(keys, edge), len(keys) - 1)
                found = keys[at] == edge
                failure[node[found]] = at[found] + 1
                rest = ~found & (state > 0)
                node, state = node[rest], failure[state[rest]].astype(np.int64)
            link = failure[begin:end]
            output[begin:end] = np.where(tree.value[link] >= 0, link, output[link])
            begin, end, level = end, int(tree.first[end]), level + 1
        initials = tree.label[1 : tree.first[1]]
        edges, children = _hash_table(parent, tree.label, len(initials) + 1)
        return Automaton(edges, children, tree.roots, initials, tree.value, depth, failure, output)

    def matches(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Yield start, end and index of every word in ``text``, by end, the longest first.

        >>> list(Automaton.build(["红色", "色裙", "裙"]).matches("红色裙"))
        [(0, 2, 0), (1, 3, 1), (2, 3, 2)]
        """
        nodes = read(*codes_of([text]), self.edges, self.children, self.roots, self.failure)
        for end, node in enumerate(nodes, 1):
            match = node if self.value[node] >= 0 else self.output[node]
            while match:
                yield end - int(self.depth[match]), end, int(self.value[match])
                match = self.output[match]

    @staticmethod
    def open(folder: Path) -> Automaton:
        """Map the arrays that :meth:`save` wrote."""
        edges, children, initials, *rest = _open(folder, AUTOMATON_FILES)
        return Automaton(edges, children, _roots(initials), initials, *rest)

    def save(self, folder: Path) -> None:
        """Write the arrays into ``folder`` (``roots`` follows from ``initials``)."""
        arrays = self._asdict()
        del arrays["roots"]
        _save(folder, **arrays)


def _roots(initials: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
    roots = np.zeros(CODE_POINTS, np.int32)
    if len(initials) and int(initials.max()) >= CODE_POINTS:
        raise ValueError("a character is out of range")
    roots[initials] = np.arange(1, len(initials) + 1, dtype=np.int32)
    return roots


def _hash_table(
    parent: npt.NDArray[np.int64], label: npt.NDArray[np.uint32], begin: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Put the edges to the nodes from ``begin`` on into a table that is at most half full."""
    node = np.arange(begin, len(label))
    size = 1 << (2 * len(node)).bit_length()
    edges, children = np.zeros(size, np.int64), np.zeros(size, np.int32)
    character = label[begin:].astype(np.int64)
    key = (parent[begin:] << CODE_POINT_BITS) | character
    slot = edge_hash(parent[begin:], character) & (size - 1)
    # All edges try their slot at once. The one that gets it stays, the others try the next slot.
    while len(node):
        free = edges[slot] == 0
        edges[slot[free]] = key[free]
        placed = edges[slot] == key
        children[slot[placed]] = node[placed]
        node, key, slot = node[~placed], key[~placed], (slot[~placed] + 1) & (size - 1)
    return edges, children


def _open(folder: Path, types: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
    """Map arrays; ValueError if one has another type than it should, or more dimensions."""
    arrays = []
    for name, kind in types.items():
        array = load_array(folder / f"{name}.npy", mapped=True)
        if array.dtype != kind or array.ndim != 1:
            raise ValueError(f"{name}.npy has another type")
        arrays.append(np.asarray(array))
    return arrays


def _save(folder: Path, **arrays: npt.NDArray[Any]) -> None:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


# --- kernels (compiled by :mod:`.jit`) -----------------------------------------------------------


def child(node: int, character: int, label: Array, first: Array, roots: Array) -> Any:
    """Return the child of ``node`` by ``character`` in a prefix tree, 0 if it has none."""
    if node == 0:
        return roots[character]
    low = first[node]
    count = first[node + 1] - low
    if count == 0:
        return 0
    while count > 1:  # halve the children without a branch, which could not be predicted
        half = count >> 1
        low += half * (label[low + half - 1] < character)
        count -= half
    return low if label[low] == character else 0


def edge_hash(node: Any, character: Any) -> Any:
    """Return a number in whose low bits the edges of an automaton differ well.

    ``node`` and ``character`` are 64-bit integers or arrays of them.
    """
    mixed = node * NODE_FACTOR ^ character * CHARACTER_FACTOR
    return mixed ^ (mixed >> HASH_SHIFT)


def read(
    characters: Array, offsets: Array, edges: Array, children: Array, roots: Array, failure: Array
) -> npt.NDArray[np.int32]:
    """Run an automaton over titles, from the root at the beginning of each.

    Args:
        characters: [C] the code points of all titles, end to end.
        offsets: [n + 1], where each title begins.
        edges: The arrays of :class:`Automaton`, here and below.
        children: The nodes that the edges lead to.
        roots: The children of the root.
        failure: The failure links.

    Returns:
        [C] the node after each character: that of the longest string that ends there and has one.
    """
    nodes = np.empty(len(characters), np.int32)
    last = len(edges) - 1
    for title in range(len(offsets) - 1):
        node = 0
        for at in range(offsets[title], offsets[title + 1]):
            character = np.int64(characters[at])
            # Each failure link undoes at least one earlier step into the tree, so a title of C
            # characters takes at most 2 C looks for an edge.
            while node != 0:
                edge = np.int64(node) << CODE_POINT_BITS | character
                slot = edge_hash(np.int64(node), character) & last
                while edges[slot] != edge and edges[slot] != 0:
                    slot = (slot + 1) & last
                if edges[slot] == edge:
                    node = children[slot]
                    break
                node = failure[node]
            else:
                node = roots[character]
            nodes[at] = node
    return nodes
